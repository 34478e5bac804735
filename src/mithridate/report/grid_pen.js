// Small things that are drawn on a canvas.

/** Place of the first number above a value in a sorted list. */
function firstAbove(list, value) {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A text that is not wider than a room; what is cut is cut out of the middle, for specifications differ at their ends. */
function cut(pen, text, room) {
  let kept = text.length;
  const shortened = () =>
    kept === text.length ? text : `${text.slice(0, Math.ceil(kept / 2))}…${text.slice(text.length - Math.floor(kept / 2))}`;
  while (kept > 2 && pen.measureText(shortened()).width > room)
    kept = Math.min(kept - 1, Math.ceil((kept * room) / pen.measureText(shortened()).width));
  return shortened();
}

/** A small triangle: some seed of this cell is dead or failed. */
function corner(pen, x, y) {
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(x - 8, y);
  pen.lineTo(x, y + 8);
  pen.fill();
}

/** The mark of a cell without a number: hatched, crossed or dotted, and in a word. */
function drawMark(pen, status, x, y, w, h) {
  pen.save();
  pen.beginPath();
  pen.rect(x, y, w, h);
  pen.clip();
  pen.lineWidth = 1;
  if (status === "dead") {
    pen.fillStyle = color("hatch-bg");
    pen.fillRect(x, y, w, h);
    pen.strokeStyle = color("hatch");
    pen.beginPath();
    for (let i = -h; i < w; i += 6) {
      pen.moveTo(x + i, y + h);
      pen.lineTo(x + i + h, y);
    }
    pen.stroke();
  } else {
    pen.strokeStyle = color(status === "failed" ? "bad" : "soft");
    pen.lineWidth = status === "failed" ? 3 : 1;
    pen.setLineDash(status === "missing" ? [2, 3] : []);
    if (status !== "none") pen.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
  }
  pen.fillStyle = color(status === "failed" ? "bad" : "soft");
  pen.font = `${status === "failed" ? "700 " : ""}11px ${FONT}`;
  pen.fillText({ dead: "dead", failed: "failed", missing: "…", none: "–" }[status], x + w / 2, y + h / 2 + 0.5);
  pen.restore();
}
