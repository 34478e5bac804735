// The cards: columns that `grid_columns.py` packed, and what follows from them once and for all.

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float64: Float64Array };

/** Numbers of one name: the different values once, and for each row which of them it has, from 1. */
class Column {
  constructor(described, array) {
    this.width = described.width;
    this.values = array(described.values);
    this.codes = array(described.codes);
  }
  at(row, part = 0) {
    const code = this.codes[row];
    return code && part < this.width ? this.values[(code - 1) * this.width + part] : NaN;
  }
}

class Data {
  constructor(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const array = ({ type, at, count }) => new ARRAYS[type](buffer, 4 + length + at, count);
    for (const name of ["count", "title", "threats", "measures", "claims", "published", "planned", "curves", "pictures"])
      this[name] = header[name];
    this.fields = new Map(Object.entries(header.fields).map(([name, each]) => [name, { words: each.words, codes: array(each.codes) }]));
    this.columns = new Map();
    for (const [part, columns] of Object.entries(header.numbers))
      for (const [name, each] of Object.entries(columns)) this.columns.set(`${part} ${name}`, new Column(each, array));
    this.keys = array(header.keys);
    this.threat = array(header.threat);
    this.victim = array(header.victim);
    this.seeds = this.fields.get("seed").words.length;
    this.defenses = this.fields.get("defense").words.map((spec) => ({ spec, name: header.names[spec] || spec, role: "" }));
    this.pair = this.pairs();
    this.order = null;
  }

  /** For each row, which cell of the heat map it belongs to; -1 for victims. */
  pairs() {
    const pair = new Int32Array(this.count).fill(-1);
    const defense = this.fields.get("defense").codes;
    for (let row = 0; row < this.count; row++) {
      if (!this.is("kind", row, "judgment")) continue;
      pair[row] = this.threat[row] * this.defenses.length + defense[row];
      this.defenses[defense[row]].role ||= this.text("role", row);
    }
    return pair;
  }

  text(name, row) {
    const { words, codes } = this.fields.get(name);
    return words[codes[row]];
  }

  is(name, row, word) {
    return this.text(name, row) === word;
  }

  column(part, name) {
    return this.columns.get(`${part} ${name}`);
  }

  number(part, name, row, which = 0) {
    const column = this.column(part, name);
    return column ? column.at(row, which) : NaN;
  }

  key(row) {
    return Array.from(this.keys.subarray(12 * row, 12 * row + 12), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** Rows of one cell of the heat map, every seed. */
  rowsOf(pair) {
    if (!this.order) {
      this.order = Uint32Array.from(this.pair.keys()).sort((a, b) => this.pair[a] - this.pair[b] || a - b);
    }
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.pair[this.order[middle]] < pair) low = middle + 1;
      else high = middle;
    }
    const found = [];
    for (let i = low; i < this.count && this.pair[this.order[i]] === pair; i++) found.push(this.order[i]);
    return found;
  }

  threatOf(pair) {
    return this.threats[Math.floor(pair / this.defenses.length)];
  }

  defenseOf(pair) {
    return this.defenses[pair % this.defenses.length];
  }
}

const data = new Data(await (await inflate("cards")).arrayBuffer());
