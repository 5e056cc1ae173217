-- The queue as version 1 made it (Genu 0.1.0), with one study done and one that still waits.
CREATE TABLE instance (
    id INTEGER PRIMARY KEY,
    study_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    sop_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    relative_path TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    peer_host TEXT NOT NULL,
    received_at REAL NOT NULL,
    seen_at REAL NOT NULL,
    revision INTEGER,
    UNIQUE (study_uid, sop_uid)
) STRICT;
CREATE INDEX instance_sop ON instance (sop_uid);
CREATE INDEX instance_pending ON instance (study_uid) WHERE revision IS NULL;
CREATE TABLE reception (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    opened_at REAL NOT NULL
) STRICT;
CREATE TABLE job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    study_uid TEXT NOT NULL,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'dead', 'superseded')),
    created_at REAL NOT NULL,
    not_before REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    worker_id TEXT,
    lease_until REAL,
    status TEXT,
    error TEXT,
    result TEXT,
    finished_at REAL,
    UNIQUE (study_uid, revision)
) STRICT;
CREATE INDEX job_queued ON job (not_before, id) WHERE state = 'queued';
CREATE INDEX job_running ON job (lease_until) WHERE state = 'running';
CREATE INDEX job_dead ON job (id) WHERE state = 'dead';
CREATE TABLE result_object (
    id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES job (id),
    position INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('heatmap', 'report')),
    series_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    sop_uid TEXT NOT NULL UNIQUE,
    relative_path TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    UNIQUE (job_id, position)
) STRICT;
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    object_id INTEGER NOT NULL REFERENCES result_object (id),
    destination TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL,
    owner TEXT,
    lease_until REAL,
    error TEXT,
    delivered_at REAL,
    UNIQUE (object_id, destination)
) STRICT;
CREATE INDEX delivery_pending ON delivery (destination, object_id) WHERE state = 'pending';
CREATE INDEX delivery_dead ON delivery (destination) WHERE state = 'dead';
CREATE TABLE destination (
    name TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    not_before REAL NOT NULL,
    error TEXT
) STRICT
;
INSERT INTO instance VALUES (1, '1.2.1', '1.2.1.9', '1.2.1.9.1', '1.2.840.10008.5.1.4.1.1.1.1', '1.2.840.10008.1.2.1',
    'instances/a.dcm', 10, 'aa', 'XR', '127.0.0.1', 1000.0, 1000.0, 1);
INSERT INTO instance VALUES (2, '1.2.2', '1.2.2.9', '1.2.2.9.1', '1.2.840.10008.5.1.4.1.1.1.1', '1.2.840.10008.1.2.1',
    'instances/b.dcm', 10, 'bb', 'XR', '127.0.0.1', 1000.0, 1000.0, NULL);
INSERT INTO job VALUES (1, '1.2.1', 1, 'done', 1001.0, 1001.0, 1, 1, NULL, NULL, 'scored', NULL, '{}', 1002.0);
INSERT INTO result_object VALUES (1, 1, 0, 'report', '2.25.1', '1.2.840.10008.5.1.4.1.1.88.34', '2.25.10',
    'results/1-1/x.dcm', 1, 'cc');
INSERT INTO delivery VALUES (1, 1, 'pacs', 'pending', 0, 0, 1002.0, NULL, NULL, NULL, NULL);
PRAGMA user_version = 1;
