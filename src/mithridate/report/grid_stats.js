// Means over seeds and threats. Only finished cells have a number; dead, failed and missing ones are counted, never averaged.

const STATUS = ["done", "dead", "failed", "missing"];

const measureOf = (id) => data.measures.find((each) => each.id === id);
const isDone = () => once("done", () => STATUS.map((word) => data.fields.get("status").words.indexOf(word)));

/** Per heat-map cell: mean over the finished seeds, how many they are, and the lowest and highest. */
function averages(measure) {
  return once(`mean ${measure.id}`, () => {
    const size = data.threats.length * data.defenses.length;
    const found = { mean: new Float64Array(size).fill(NaN), n: new Uint32Array(size) };
    const column = data.column(measure.part, measure.name);
    const roles = rolesOf(measure);
    if (!column) return found;
    const [done] = isDone();
    const { codes: status } = data.fields.get("status");
    const { codes: defense } = data.fields.get("defense");
    for (const row of rowsShown()) {
      const pair = data.pair[row];
      const value = column.at(row);
      if (pair < 0 || status[row] !== done || !roles[defense[row]] || Number.isNaN(value)) continue;
      found.mean[pair] = (found.n[pair] ? found.mean[pair] : 0) + value;
      found.n[pair]++;
    }
    for (let pair = 0; pair < size; pair++) if (found.n[pair] > 1) found.mean[pair] /= found.n[pair];
    return found;
  });
}

/** Which defenses a measure is of. */
function rolesOf(measure) {
  return Uint8Array.from(data.defenses, ({ role }) => (measure.roles.includes(role) ? 1 : 0));
}

/** Per heat-map cell: number of cards of each status. */
function statuses() {
  return once("statuses", () => {
    const found = new Uint16Array(STATUS.length * data.threats.length * data.defenses.length);
    const { codes, words } = data.fields.get("status");
    const place = words.map((word) => STATUS.indexOf(word));
    for (const row of rowsShown()) if (data.pair[row] >= 0) found[STATUS.length * data.pair[row] + place[codes[row]]]++;
    return found;
  });
}

/** The status that a heat-map cell shows: done if any seed is, else the worst there is; empty for no card at all. */
function statusOf(pair) {
  const counts = statuses().subarray(STATUS.length * pair, STATUS.length * (pair + 1));
  if (counts[0]) return "done";
  return counts[2] ? "failed" : counts[1] ? "dead" : counts[3] ? "missing" : "";
}

/**
 * Defenses of some roles over the threats and seeds that every one of them has finished.
 *
 * `measures[0]` decides which threats are common; the others are averaged over the same ones. Seeds are averaged first, then threats.
 */
function compare(roles, kinds, measures) {
  return once(`compare ${roles} ${kinds} ${measures.map((each) => each.id)}`, () => {
    const chosen = (each) => roles.includes(each.role) && !state.off.has(each.spec);
    const tables = measures.map((measure) => values(measure, chosen, kinds));
    const compared = tables[0].size;
    const finished = new Uint32Array(data.threats.length * data.seeds);
    for (const own of tables[0].values()) own.forEach((value, i) => (finished[i] += Number.isNaN(value) ? 0 : 1));
    const common = compared > 0 && finished.includes(compared);
    const kept = common ? finished.map((n) => (n === compared ? 1 : 0)) : finished.fill(1);
    const lines = Array.from(tables[0].keys(), (id) => line(id, measures, tables, kept));
    const way = measures[0].better === "low" ? 1 : -1;
    lines.sort((a, b) => way * (a[measures[0].id].mean - b[measures[0].id].mean) || a.name.localeCompare(b.name));
    return { lines, common, threats: common ? lines[0].threats : 0, cells: common ? lines[0].cells : 0, kept };
  });
}

/** The undefended models over the same threats and seeds. */
function undefended(measures, kinds, kept) {
  const tables = measures.map((measure) => values(measure, (each) => each.role === "none", kinds));
  return tables[0].size ? line(tables[0].keys().next().value, measures, tables, kept) : null;
}

/** defense -> value by threat and seed (NaN where there is none), of finished cells of the chosen defenses and kinds of threats. */
function values(measure, chosen, kinds) {
  const column = data.column(measure.part, measure.name);
  const found = new Map();
  if (!column) return found;
  const wanted = data.defenses.map(chosen);
  const right = data.threats.map(({ kind }) => kinds.includes(kind));
  const [done] = isDone();
  const [status, defense, seed] = ["status", "defense", "seed"].map((name) => data.fields.get(name).codes);
  for (const row of rowsShown()) {
    const id = defense[row];
    if (!wanted[id] || data.pair[row] < 0 || status[row] !== done || !right[data.threat[row]]) continue;
    const value = column.at(row);
    if (Number.isNaN(value)) continue;
    if (!found.has(id)) found.set(id, new Float64Array(data.threats.length * data.seeds).fill(NaN));
    found.get(id)[data.threat[row] * data.seeds + seed[row]] = value;
  }
  return found;
}

/** One defense's means over the threats and seeds that are kept. */
function line(id, measures, tables, kept) {
  const found = { id, ...data.defenses[id], threats: 0, cells: 0 };
  measures.forEach((measure, i) => {
    const { means, cells } = byThreat(tables[i].get(id) || [], kept);
    const mean = means.reduce((a, b) => a + b, 0) / means.length;
    found[measure.id] = { means, mean, low: Math.min(...means), high: Math.max(...means) };
    if (!i) Object.assign(found, { threats: means.length, cells });
  });
  return found;
}

/** The mean over the seeds of every threat, and how many values they are made of. */
function byThreat(own, kept) {
  const means = [];
  let cells = 0;
  for (let start = 0; start < own.length; start += data.seeds) {
    let [sum, n] = [0, 0];
    for (let i = start; i < start + data.seeds; i++) {
      if (!kept[i] || Number.isNaN(own[i])) continue;
      sum += own[i];
      n++;
    }
    if (n) means.push(sum / n);
    cells += n;
  }
  return { means, cells };
}

/** Mean of one number over the finished cards of a defense. */
function meanOf(column, rows) {
  let sum = 0;
  let n = 0;
  for (const row of rows) {
    const value = column ? column.at(row) : NaN;
    if (!Number.isNaN(value)) {
      sum += value;
      n++;
    }
  }
  return { mean: n ? sum / n : NaN, n };
}
