// How a reader moves over the heat map: with a pointer, a finger or the arrow keys.

class MapPointer {
  constructor(map) {
    this.map = map;
    const { box } = map;
    box.addEventListener("pointermove", (event) => this.point(event));
    box.addEventListener("pointerleave", () => this.move(null));
    box.addEventListener("blur", () => this.move(null));
    box.addEventListener("click", (event) => {
      this.point(event);
      this.open();
    });
    box.addEventListener("keydown", (event) => this.key(event));
  }

  point(event) {
    const frame = this.map.box.getBoundingClientRect();
    this.move(this.map.at(event.clientX - frame.left, event.clientY - frame.top), event.clientX, event.clientY);
  }

  /** Make a cell the focus, with its note at a point of the window. */
  move(focus, x, y) {
    const { map } = this;
    const same = String(focus) === String(map.focus);
    map.focus = focus;
    map.box.style.cursor = focus ? "pointer" : "";
    if (!focus) hideTip();
    else showTip(x, y, ...aboutCell(map.pairAt(...focus), map.measure));
    if (!same) map.later();
  }

  open() {
    if (this.map.focus) openCell(this.map.pairAt(...this.map.focus));
  }

  key(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0], PageDown: [10, 0] };
    const step = steps[event.key];
    if (event.key === "Enter") this.open();
    else if (event.key === "Escape") this.move(null);
    else if (step && this.map.columns.length) this.step(...step);
    else return;
    event.preventDefault();
  }

  /** Go to the next cell in a direction, over the headings of blocks. */
  step(down, right) {
    const { rows, columns } = this.map;
    const [row, column] = this.map.focus || [0, -right];
    const wanted = [Math.min(Math.max(row + down, 0), rows.length - 1), Math.min(Math.max(column + right, 0), columns.length - 1)];
    if (rows[wanted[0]].group !== undefined) wanted[0] += down < 0 && wanted[0] > 0 ? -1 : 1;
    this.move(wanted, ...this.map.bring(wanted));
  }
}
