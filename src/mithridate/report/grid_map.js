// The heat map: threats by defenses on one canvas, of which only what is in sight is drawn.

const SIZE = { column: 46, widest: 64, row: 26, block: 30, gap: 14, right: 90, bands: 22 };

class HeatMap {
  constructor(box) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.room = box.querySelector(".room");
    this.pen = this.canvas.getContext("2d");
    this.focus = null; // [row, column] that the pointer or the keyboard is at
    box.addEventListener("scroll", () => this.later());
    new ResizeObserver(() => this.measure && this.layOut()).observe(box.parentElement);
  }

  /** Take a measure and the filters, and draw. */
  load(measure) {
    this.measure = measure;
    this.values = averages(measure);
    this.focus = null;
    const used = this.used();
    this.columns = this.sorted(used.defenses);
    this.rows = [];
    const threats = used.threats.sort((a, b) => data.threats[a].group.localeCompare(data.threats[b].group) || a - b);
    threats.forEach((threat, i) => {
      const { group } = data.threats[threat];
      if (!i || group !== data.threats[threats[i - 1]].group) this.rows.push({ group });
      this.rows.push({ threat });
    });
    this.scale = scaleOf(measure, this.values.mean);
    this.layOut();
    return { rows: threats.length, columns: this.columns.length };
  }

  /** Defenses of the measure's roles that have any card, and threats of which there is more to say than that the number means nothing. */
  used() {
    const roles = rolesOf(this.measure);
    const counts = statuses();
    const threats = new Set();
    const defenses = new Set();
    const width = data.defenses.length;
    for (let pair = 0; pair < this.values.n.length; pair++) {
      const at = STATUS.length * pair;
      if (!roles[pair % width] || !(counts[at] || counts[at + 1] || counts[at + 2] || counts[at + 3])) continue;
      defenses.add(pair % width);
      if (this.values.n[pair] || !counts[at]) threats.add(Math.floor(pair / width));
    }
    return { threats: [...threats], defenses: [...defenses] };
  }

  /** Columns by role, the best first: by their mean over the cells drawn. */
  sorted(ids) {
    const { mean } = this.values;
    const width = data.defenses.length;
    const means = new Map(
      ids.map((id) => {
        const own = [];
        for (let pair = id; pair < mean.length; pair += width) if (!Number.isNaN(mean[pair])) own.push(mean[pair]);
        return [id, own.length ? own.reduce((a, b) => a + b, 0) / own.length : NaN];
      }),
    );
    const key = (id) => (Number.isNaN(means.get(id)) ? Infinity : this.measure.better === "high" ? -means.get(id) : means.get(id));
    const role = (id) => this.measure.roles.indexOf(data.defenses[id].role);
    return ids.sort((a, b) => role(a) - role(b) || key(a) - key(b) || data.defenses[a].name.localeCompare(data.defenses[b].name));
  }

  /** Where every row and column lies. */
  layOut() {
    const wide = this.box.parentElement.clientWidth;
    this.pen.font = `13px ${FONT}`;
    const labels = this.rows.map((row) => (row.group === undefined ? this.pen.measureText(data.threats[row.threat].name).width + 64 : 0));
    this.left = Math.round(
      Math.min(
        labels.reduce((a, b) => Math.max(a, b), 120),
        wide * 0.38,
        280,
      ),
    );
    this.pen.font = `12.5px ${FONT}`;
    const names = this.columns.map((id) => this.pen.measureText(defenseName(data.defenses[id])).width);
    this.head =
      SIZE.bands +
      Math.round(
        Math.min(
          names.reduce((a, b) => Math.max(a, b), 60),
          190,
        ) *
          0.71 +
          22,
      );
    const free = wide - this.left - SIZE.right - 4 * SIZE.gap;
    this.column = Math.round(Math.min(Math.max(free / this.columns.length, SIZE.column), SIZE.widest));
    let x = 0;
    this.x = this.columns.map((id, i) => {
      if (i && data.defenses[id].role !== data.defenses[this.columns[i - 1]].role) x += SIZE.gap;
      x += this.column;
      return x - this.column;
    });
    let y = 0;
    this.y = this.rows.map((row) => {
      y += row.group === undefined ? SIZE.row : SIZE.block;
      return y - (row.group === undefined ? SIZE.row : SIZE.block);
    });
    this.width = this.left + x + SIZE.right;
    this.height = this.head + y + 4;
    this.room.style.width = `${this.width}px`;
    this.room.style.height = `${this.height}px`;
    this.box.style.height = `${Math.min(this.height + 2, Math.max(360, innerHeight * 0.82))}px`;
    this.fit();
  }

  /** Make the canvas as large as what is in sight, in the screen's own pixels. */
  fit() {
    const [width, height] = [this.box.clientWidth, this.box.clientHeight];
    const dots = devicePixelRatio || 1;
    this.canvas.width = width * dots;
    this.canvas.height = height * dots;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.pen.setTransform(dots, 0, 0, dots, 0, 0);
    this.draw();
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    const { pen, box } = this;
    const [width, height] = [box.clientWidth, box.clientHeight];
    const [sx, sy] = [box.scrollLeft, box.scrollTop];
    pen.fillStyle = color("card");
    pen.fillRect(0, 0, width, height);
    pen.textBaseline = "middle";
    const first = Math.max(0, firstAbove(this.y, sy) - 1);
    for (let row = first; row < this.rows.length && this.y[row] + this.head - sy < height; row++) {
      if (this.rows[row].group !== undefined) continue;
      const y = this.y[row] + this.head - sy;
      for (let i = Math.max(0, firstAbove(this.x, sx) - 1); i < this.columns.length && this.x[i] + this.left - sx < width; i++)
        this.cell(row, i, this.x[i] + this.left - sx, y);
    }
    this.drawHead(width, sx);
    this.drawSide(first, height, sy);
  }

  pairAt(row, column) {
    return this.rows[row].threat * data.defenses.length + this.columns[column];
  }

  cell(row, column, x, y) {
    const { pen } = this;
    const pair = this.pairAt(row, column);
    const status = statusOf(pair);
    const value = this.values.mean[pair];
    const [w, h] = [this.column - 2, SIZE.row - 2];
    pen.textAlign = "center";
    if (status === "done" && !Number.isNaN(value)) {
      const rgb = this.scale.rgb(value);
      pen.fillStyle = `rgb(${rgb})`;
      pen.fillRect(x, y, w, h);
      pen.fillStyle = inkOn(rgb);
      pen.font = `600 12px ${FONT}`;
      pen.fillText(brief(this.measure, value), x + w / 2, y + h / 2 + 0.5);
      if (statuses()[STATUS.length * pair + 1] || statuses()[STATUS.length * pair + 2]) corner(pen, x + w, y);
    } else if (status) drawMark(pen, status === "done" ? "none" : status, x, y, w, h);
    if (this.focus && this.focus[0] === row && this.focus[1] === column) {
      pen.strokeStyle = color("ink");
      pen.lineWidth = 2.5;
      pen.strokeRect(x - 0.5, y - 0.5, w + 1, h + 1);
    }
  }

  /** Names of the defenses, slanted, under a band for each role. */
  drawHead(width, sx) {
    const { pen } = this;
    pen.fillStyle = color("card");
    pen.fillRect(0, 0, width, this.head);
    this.columns.forEach((id, i) => {
      const x = this.x[i] + this.left - sx;
      if (x < this.left - this.column || x > width) return;
      pen.save();
      pen.translate(x + this.column / 2 - 3, this.head - 8);
      pen.rotate(-Math.PI / 4);
      pen.textAlign = "left";
      pen.font = `${this.focus && this.focus[1] === i ? "700 " : ""}12.5px ${FONT}`;
      pen.fillStyle = color("ink");
      pen.fillText(cut(pen, defenseName(data.defenses[id]), 190), 0, 0);
      pen.restore();
    });
    this.drawBands(width, sx);
  }

  drawBands(width, sx) {
    const { pen } = this;
    pen.font = `600 11.5px ${FONT}`;
    pen.textAlign = "left";
    for (let from = 0; from < this.columns.length;) {
      const { role } = data.defenses[this.columns[from]];
      let to = from;
      while (to + 1 < this.columns.length && data.defenses[this.columns[to + 1]].role === role) to++;
      const x = Math.max(this.x[from] + this.left - sx, this.left);
      const end = this.x[to] + this.column - 2 + this.left - sx;
      if (end > this.left && x < width) {
        pen.fillStyle = color("soft");
        pen.fillRect(x, this.head - 4, end - x, 2);
        if (to > from) pen.fillText(cut(pen, ROLES[role], end - x), x + this.head - SIZE.bands - 14, 11);
      }
      from = to + 1;
    }
  }

  /** Names of the threats, and of the block that they are in. */
  drawSide(first, height, sy) {
    const { pen } = this;
    let block = "";
    pen.fillStyle = color("card");
    pen.fillRect(0, this.head, this.left - 4, height);
    for (let row = 0; row < this.rows.length; row++) {
      const y = this.y[row] + this.head - sy;
      if (y > height) break;
      if (this.rows[row].group !== undefined && y < this.head) block = this.rows[row].group;
      if (row < first || y < this.head - SIZE.block) continue;
      if (this.rows[row].group !== undefined) this.drawBlock(this.rows[row].group, y);
      else this.drawThreat(row, y);
    }
    pen.fillStyle = color("card");
    pen.fillRect(0, 0, this.left - 4, this.head);
    pen.font = `700 12.5px ${FONT}`;
    pen.fillStyle = color("ink");
    pen.fillText(cut(pen, block, this.left - 12), 4, this.head - 14);
  }

  drawBlock(name, y) {
    const { pen, box } = this;
    pen.fillStyle = color("card");
    pen.fillRect(0, y, box.clientWidth, SIZE.block);
    pen.textAlign = "left";
    pen.font = `700 12.5px ${FONT}`;
    pen.fillStyle = color("ink");
    pen.fillText(cut(pen, name, box.clientWidth - 12), 4, y + SIZE.block / 2 + 2);
  }

  drawThreat(row, y) {
    const { pen } = this;
    const threat = data.threats[this.rows[row].threat];
    const rate = rateName(threat.rate);
    const active = this.focus && this.focus[0] === row;
    pen.font = `${active ? "700 " : ""}12.5px ${FONT}`;
    pen.textAlign = "right";
    pen.fillStyle = color("soft");
    pen.fillText(rate, this.left - 10, y + SIZE.row / 2);
    pen.textAlign = "left";
    pen.fillStyle = color("ink");
    pen.fillText(cut(pen, threat.name, this.left - 18 - (rate ? 42 : 0)), 4, y + SIZE.row / 2);
  }

  /** Row and column of the cell at a point of the box, or null where there is none. */
  at(x, y) {
    const [inX, inY] = [x - this.left + this.box.scrollLeft, y - this.head + this.box.scrollTop];
    if (x < this.left || y < this.head) return null;
    const [row, column] = [firstAbove(this.y, inY) - 1, firstAbove(this.x, inX) - 1];
    if (row < 0 || column < 0 || this.rows[row].group !== undefined || inX >= this.x[column] + this.column) return null;
    return statusOf(this.pairAt(row, column)) ? [row, column] : null;
  }

  /** Scroll until a cell is in sight; gives its right upper corner in the window. */
  bring([row, column]) {
    const { box } = this;
    const [x, y] = [this.x[column], this.y[row]];
    box.scrollLeft = Math.min(Math.max(box.scrollLeft, x + this.left + this.column - box.clientWidth), x);
    box.scrollTop = Math.min(Math.max(box.scrollTop, y + this.head + SIZE.row - box.clientHeight), y);
    const frame = box.getBoundingClientRect();
    return [frame.left + this.left + x - box.scrollLeft + this.column, frame.top + this.head + y - box.scrollTop];
  }
}
