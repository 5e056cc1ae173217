// 16-bit grey PNG to numbers, all 16 bits of them: a browser's own decoder keeps eight (PNG specification, 3rd edition).

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

export async function decode(buffer) {
  const bytes = new Uint8Array(buffer), view = new DataView(buffer);
  if (SIGNATURE.some((value, place) => bytes[place] !== value)) throw new Error("no PNG");
  const parts = [];
  let width = 0, height = 0;
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at), kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8)), start = at + 8;
    if (kind === "IHDR") {
      width = view.getUint32(start);
      height = view.getUint32(start + 4);
      if (bytes[start + 8] !== 16 || bytes[start + 9] !== 0 || bytes[start + 12] !== 0) throw new Error("not 16-bit grey");
    } else if (kind === "IDAT") parts.push(bytes.subarray(start, start + length));
    at = start + length + 4;
  }
  const plain = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return { width, height, values: unfiltered(new Uint8Array(await new Response(plain).arrayBuffer()), width, height) };
}

function unfiltered(raw, width, height) {
  const line = 2 * width;
  if (raw.length !== (line + 1) * height) throw new Error("a PNG of another size than it says");
  const values = new Uint16Array(width * height);
  let above = new Uint8Array(line), here = new Uint8Array(line);
  for (let row = 0; row < height; row++) {
    const start = row * (line + 1), filter = raw[start];
    for (let x = 0; x < line; x++) {
      const a = x >= 2 ? here[x - 2] : 0, b = above[x], c = x >= 2 ? above[x - 2] : 0;
      const guess = [0, a, b, (a + b) >> 1, 0][filter] ?? 0;
      here[x] = raw[start + 1 + x] + (filter === 4 ? paeth(a, b, c) : guess);
    }
    for (let x = 0; x < width; x++) values[row * width + x] = (here[2 * x] << 8) | here[2 * x + 1];
    [above, here] = [here, above];
  }
  return values;
}

function paeth(a, b, c) {
  const pa = Math.abs(b - c), pb = Math.abs(a - c), pc = Math.abs(a + b - 2 * c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}
