"""What each `genu` command does with its arguments; the parser itself is plugin.cli."""
