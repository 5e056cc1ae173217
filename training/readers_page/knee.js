// One knee on the screen: its slices, which of them is shown, and how it is drawn.

export class Knee {
  constructor(section) {
    this.section = section;
    this.canvas = section.querySelector("canvas");
    this.slider = section.querySelector(".slices");
    this.pixels = document.createElement("canvas"); // a slice in its own pixels
    this.about = null;
  }

  // about: what the server says of it; slices: promises of {width, height, values}, in order.
  show(about, slices) {
    Object.assign(this, { about, slices, ready: new Array(about.slices).fill(null), seen: new Set() });
    this.slider.max = about.slices;
    [this.pixels.width, this.pixels.height] = [about.columns, about.rows];
    this.text(".start", about.edges[0]);
    this.text(".end", about.edges[1]);
    this.place = Math.floor((about.slices - 1) / 2);
    slices.forEach((slice, place) => slice.then((found) => {
      if (this.slices !== slices) return;
      this.ready[place] = found.values;
      const left = this.ready.filter((one) => one === null).length;
      this.text(".loading", left ? `${about.slices - left} of ${about.slices} slices loaded` : "");
      if (place === this.place) this.onready();
    }, () => {}));
    this.text(".loading", "loading");
  }

  get whole() { return this.ready?.every((one) => one !== null); }

  onready() {}

  move(steps) { this.go(this.place + steps); }

  go(place) { this.place = Math.max(0, Math.min(this.about.slices - 1, place)); }

  text(where, what) { this.section.querySelector(where).textContent = what; }

  // mm that fit into the frame, for one scale of both knees
  fits() {
    const { rows, columns, row_mm, column_mm } = this.about, box = this.canvas.getBoundingClientRect();
    return Math.min(box.width / (columns * column_mm), box.height / (rows * row_mm));
  }

  // look: brightness, contrast, invert, zoom, x, y (mm); scale: CSS pixels a mm
  draw(look, scale) {
    const { rows, columns, row_mm, column_mm, slices, order } = this.about;
    this.slider.value = this.place + 1;
    this.slider.setAttribute("aria-valuetext", `slice ${this.place + 1} of ${slices}`);
    this.text(".place", `slice ${this.place + 1} of ${slices}  (1: ${order[0]}, ${slices}: ${order[1]})`);
    const box = this.canvas.getBoundingClientRect(), dots = window.devicePixelRatio || 1;
    const [wide, high] = [Math.max(1, Math.round(box.width * dots)), Math.max(1, Math.round(box.height * dots))];
    if (this.canvas.width !== wide || this.canvas.height !== high) [this.canvas.width, this.canvas.height] = [wide, high];
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, wide, high);
    const values = this.ready[this.place];
    this.canvas.dataset.slice = values ? this.place + 1 : 0;
    if (!values) return;
    this.seen.add(this.place);
    this.pixels.getContext("2d").putImageData(this.grey(values, look), 0, 0);
    const zoom = scale * look.zoom * dots;
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.setTransform(zoom * column_mm, 0, 0, zoom * row_mm, wide / 2 + look.x * zoom, high / 2 + look.y * zoom);
    context.drawImage(this.pixels, -columns / 2, -rows / 2);
  }

  grey(values, look) {
    const [low, high] = this.about.window, width = (high - low) * 2 ** -look.contrast;
    const dark = (low + high) / 2 - look.brightness * (high - low) - width / 2;
    const image = new ImageData(this.about.columns, this.about.rows), out = new Uint32Array(image.data.buffer);
    const factor = 255 / width;
    for (let place = 0; place < out.length; place++) {
      let value = Math.max(0, Math.min(255, Math.round((values[place] - dark) * factor)));
      if (look.invert) value = 255 - value;
      out[place] = 0xff000000 | (value << 16) | (value << 8) | value;
    }
    return image;
  }
}
