// The playground: a tiny frozen network with a bottleneck adapter that is trained in the page, on points in the plane.
// The first half computes (float64; the optimiser is torch's Adam, full batch, cross entropy) and runs anywhere; the
// second half draws. `render` is anywidget's; `mount(element, state)` needs no kernel. The last statement exports all.

const D = 8, WIDE = 32, CLASSES = 2; // widths of the stream h, of the frozen layer, and of the answer
const POINTS = 200, UNSEEN = 400, MOST = 2000; // points to learn from, others to test on, and the end of a run
// Trained on the moons and then frozen, by `python data/make_playground.py`, which writes the next line.
const BASE = {embed:[-1.9411,-0.1966,-0.6779,1.0959,-0.6897,-1.0438,-0.6609,-0.422,-0.6425,1.3311,0.4912,1.5834,0.8822,-0.8073,0.453,0.724],embedBias:[0.074,-0.0958,-0.0502,0.3608,-0.1358,0.0776,0.0391,-0.1297],wide:[-0.036,0.2421,-0.7458,0.1426,-0.4763,0.1745,0.1909,0.4,0.3043,0.515,-0.0171,-0.1968,-0.1114,0.186,-0.7039,0.4493,0.4919,0.3467,0.0607,0.3487,0.3802,0.5857,-0.143,-0.416,-0.0543,-0.2175,-0.4905,0.2829,0.2308,-0.2435,-0.5121,0.0042,-0.2025,0.6133,-0.0121,0.4133,0.5908,0.2555,-0.1706,0.6085,0.0043,0.5072,0.4851,0.1597,0.3071,-0.6079,-0.2812,-1.9619,0.1285,-0.37,0.0673,0.1981,-0.0962,-0.1351,-0.3788,-0.2167,0.3086,0.3521,-0.1032,0.1679,0.1737,0.1504,-0.2973,0.2048,0.0352,-0.1696,-0.1471,-0.6007,0.1227,-0.1591,0.0305,0.0114,0.9503,1.1921,0.1663,-0.9004,1.4251,-0.1704,-1.0441,0.5313,-0.4086,0.3353,-0.1562,0.8205,-0.8208,-0.4323,0.2662,-0.3099,-0.1692,0.5362,-0.1196,0.3228,-0.1767,-0.2461,-0.3225,0.1983,0.2185,0.2979,-0.0331,0.4673,-0.2785,0.3382,0.0876,0.3395,0.1757,0.3136,0.0879,0.6531,0.0944,-0.5147,0.194,-0.0857,0.1183,-0.5435,-0.2146,0.2727,0.0081,-0.1495,0.4441,0.3699,0.2242,-0.2093,0.7736,0.2221,-0.1582,-0.9535,0.1926,-0.0112,-0.6103,0.006,-0.3568,-0.631,-0.0219,-0.2268,0.9993,0.501,0.613,-0.3188,-0.2696,0.5802,-0.178,-0.39,-0.1322,0.1694,-0.1282,-0.1126,-0.5285,-0.3659,-0.1174,0.3781,0.2276,0.7822,0.0241,-0.3989,-0.1431,0.1237,0.4278,-0.6685,0.3517,0.7308,-0.4202,0.2614,-1.4336,-0.7725,-0.0267,1.2011,0.291,0.4442,0.2987,0.1585,-0.3909,0.1514,-0.2742,-0.419,-0.3691,-0.7062,0.3251,0.0133,-0.1029,0.1187,0.5175,0.1902,-0.1892,0.2233,-0.3961,0.0766,0.1245,0.324,-0.0592,0.831,0.3793,0.5829,-0.0328,-0.2917,0.5305,-0.8757,-0.1069,-0.0289,0.3631,0.2765,0.6135,0.5201,0.2278,1.1372,0.4189,-0.2143,-0.1613,-0.7051,0.134,-0.0926,-0.587,-0.4959,0.2163,0.2391,0.426,-0.2409,0.4193,-0.21,-0.2572,0.2991,0.3783,0.3535,-0.229,0.3641,0.1983,0.8149,-0.2921,-0.4561,0.5395,0.5751,-0.6993,0.6872,-0.0126,0.0724,0.5619,0.477,0.3262,-0.5333,-0.5793,-1.4667,-1.4908,-0.4822,-1.8271,-0.5403,0.714,0.6077,0.6343,0.8793,-0.3642,0.9503,-0.1968,0.761,-0.3718,-0.3104,0.6555,0.1067],wideBias:[-0.0453,-0.2401,1.275,-0.1384,0.1,0.0853,0.2365,-0.4429,-0.1599,-2.8516,-0.5111,-0.0172,-0.1998,-0.1923,0.6676,-0.4612,0.7183,-0.3116,-0.0484,-0.5542,0.1385,-0.1119,0.6152,0.031,-0.1313,-0.1226,0.3663,0.3597,0.3536,0.0323,0.0675,0.0261],narrow:[-0.173,-0.0865,-0.2255,-0.1157,-0.0275,-0.0084,-0.0721,-0.3453,-0.2906,0.1077,0.1475,-0.219,-0.1481,0.1682,0.1427,-0.3076,-0.1013,-0.074,-0.3615,-0.0349,-0.411,-0.2452,0.0182,0.0589,0.2772,0.171,0.3652,-0.4829,0.1572,-0.1525,-0.5189,0.0793,-0.4899,-0.1806,0.381,-0.2218,-0.127,0.5257,-0.0084,-0.0095,0.1242,0.2298,0.0444,-0.0232,-0.0741,-0.1737,0.2083,-0.3341,0.1747,0.1184,-0.0752,0.2652,0.5289,0.0235,-0.003,-0.1844,-0.0763,-0.3474,-0.2745,0.3905,-0.4335,0.054,0.364,-0.0124,0.1389,-0.0018,0.706,-0.6063,0.6619,0.7986,-0.1598,-0.0464,-0.0318,1.4363,-0.0922,-0.3995,-0.4092,0.1416,0.6131,-0.2595,1.0649,0.2999,-0.3188,1.1001,0.5114,0.2169,0.4159,-0.4293,-0.4981,-0.5588,-0.0198,0.2257,-0.8225,0.6164,0.6869,0.4844,-0.1864,-0.1079,-0.2564,-0.0904,0.1311,0.2358,-0.0682,0.0076,0.1368,-0.01,-0.1051,-0.0842,0.1566,0.4698,-0.3181,-0.3696,0.3144,-0.0098,-0.2965,-0.1832,0.4651,0.2624,0.2263,-0.3954,-0.1307,-0.5088,0.0057,0.0726,-0.2644,-0.034,0.4269,-0.1699,-0.1844,0.0114,0.187,-0.1957,0.3106,0.525,-0.1042,0.1562,0.0606,0.4444,0.0309,-0.1704,-0.246,-0.1315,0.1843,-0.1906,0.6848,0.2463,-0.1318,-0.0697,0.2589,0.2076,0.2572,-0.4222,-0.0654,-0.645,0.1154,0.094,-0.7019,0.1223,0.3072,0.267,0.0637,-0.0185,0.3394,0.2106,0.3165,0.1501,0.1676,0.0346,0.1761,0.0554,-0.0374,0.037,-0.1754,0.1842,0.0196,-0.2616,0.1231,0.0163,-0.1355,0.3965,0.2165,0.5858,0.2097,-0.1261,-0.1244,-0.361,-0.3616,0.1419,-0.414,0.0244,0.5006,0.1683,0.0413,-0.1415,-0.1552,0.1406,-0.1929,-0.0571,0.1599,-0.1533,-0.0761,-0.3738,0.0366,0.2015,-0.1806,-0.262,-0.0717,-0.1163,-0.1562,-0.3257,0.2388,-0.1882,-0.3702,-0.2137,-0.2435,0.344,0.2582,0.6435,-0.3161,-0.3597,0.3208,-0.1262,-0.4018,-0.0632,0.0547,-0.3991,-0.2441,-0.0874,0.0183,0.0155,-0.0892,0.1244,-0.5148,-0.3284,0.1346,0.0689,0.1184,-0.0646,-0.2493,0.3869,-0.2872,-0.1864,0.1714,-0.164,-0.5618,0.0548,-0.0656,0.3538,0.1883,0.6976,0.1559,-0.0821,0.1677,-0.1513,-0.5398,-0.1273],narrowBias:[-0.037,-0.0397,-0.2484,-0.0233,-0.0811,0.0074,-0.0122,0.0262],head:[-0.2723,0.0532,0.8724,0.3328,0.3825,1.1306,-0.3091,-0.4114,0.35,-0.3116,-0.5445,-0.5992,-0.1191,-0.0756,0.6898,0.9423],headBias:[0.0334,-0.0334]};

let translations = {}; // by the English text, from the kernel or the page
const N_ = String.raw; // marks a text that _ translates later, where it is shown
/** A text in the learner's language, with what is put in: _`step ${n}` is known as "step {0}". */
function _(text, ...put) {
  const english = typeof text === "string" ? text : text.reduce((said, part, i) => `${said}{${i - 1}}${part}`);
  return (translations[english] ?? english).replace(/\{(\d)\}/g, (hole, i) => put[i] ?? hole);
}

// --- what is computed ------------------------------------------------------------------------------------------------

/** The error function: its series near 0, where all terms have one sign, and a continued fraction beyond. */
function erf(x) {
  const size = Math.abs(x), square = x * x;
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= (2 * square) / (2 * n + 1);
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-square) * sum;
  }
  let below = size;
  for (let n = 60; n > 0; n--) below = size + n / 2 / below;
  return Math.sign(x) * (1 - Math.exp(-square) / Math.sqrt(Math.PI) / below);
}

const cumulated = x => 0.5 * (1 + erf(x / Math.SQRT2)); // of the normal distribution
/** Each activation with its derivative. */
const ACTIVATIONS = {
  identity: { label: N_`identity`, f: x => x, slope: () => 1 },
  relu: { label: "ReLU", f: x => (x > 0 ? x : 0), slope: x => (x > 0 ? 1 : 0) },
  gelu: { label: "GELU", f: x => x * cumulated(x), slope: x => cumulated(x) + x * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI) },
  tanh: { label: "tanh", f: Math.tanh, slope: x => 1 - Math.tanh(x) ** 2 },
};

/** Random numbers that follow a seed: `uniform()` in [0, 1), by mulberry32, and `normal()`, by Box and Muller. */
function randomNumbers(seed) {
  let at = (seed * 0x9e3779b9 + 0x85ebca6b) >>> 0;
  const uniform = () => {
    at = (at + 0x6d2b79f5) >>> 0;
    let t = Math.imul(at ^ (at >>> 15), at | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal };
}

const onMoons = (u, side) => [Math.cos(Math.PI * u) * side - 0.5 * side, Math.sin(Math.PI * u) * side - 0.25 * side];
const onSpiral = (u, side) => { const r = Math.sqrt(u), a = 1.7 * Math.PI * r; return [side * (0.2 + 1.3 * r) * Math.cos(a), side * (0.2 + 1.3 * r) * Math.sin(a)]; };
const onCircles = (u, side) => { const r = side > 0 ? 0.45 : 1.25; return [r * Math.cos(2 * Math.PI * u), r * Math.sin(2 * Math.PI * u)]; };
/** The data sets: where a point of a class lies (`side` is 1 or -1), before some noise. The base was trained on moons. */
const DATA = {
  moons: { label: N_`moons`, title: N_`what the frozen base was trained on`, at: onMoons, noise: 0.1 },
  turned: { label: N_`turned moons`, title: N_`the moons, turned by a right angle`, at: (u, side) => { const [x, y] = onMoons(u, side); return [-y, x]; }, noise: 0.1 },
  circles: { label: N_`circles`, title: N_`a ring around a ring`, at: onCircles, noise: 0.12 },
  spirals: { label: N_`spirals`, title: N_`two arms wound around each other`, at: onSpiral, noise: 0.07 },
};

/** `count` points, as x (count × 2, row by row) and y (0 or 1, in turn). */
function drawn(name, count, random) {
  const x = new Float64Array(2 * count), y = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    y[i] = i % 2;
    const [across, up] = DATA[name].at(random.uniform(), 1 - 2 * y[i]);
    x[2 * i] = across + DATA[name].noise * random.normal();
    x[2 * i + 1] = up + DATA[name].noise * random.normal();
  }
  return { x, y };
}

/** out = weight · x + bias, for weight (rows × columns, row by row). */
function linear(weight, bias, x, out) {
  const columns = x.length;
  for (let r = 0, k = 0; r < out.length; r++) {
    let sum = bias[r];
    for (let c = 0; c < columns; c++) sum += weight[k++] * x[c];
    out[r] = sum;
  }
}

/** gradient += weightᵀ · outer, which is what comes back through a linear layer. */
function back(weight, outer, gradient) {
  const columns = gradient.length;
  for (let r = 0, k = 0; r < outer.length; r++) for (let c = 0; c < columns; c++) gradient[c] += weight[k++] * outer[r];
}

/** The initial weights of an adapter, as those of `Adapter` in the course: up_project at zero, or both from N(0, std²). */
function initial({ m, start }, random) {
  const std = start === "zero" ? 0 : Number(start.slice(3)), bound = 1 / Math.sqrt(D);
  const down = Float64Array.from({ length: m * D }, () => (std ? std * random.normal() : bound * (2 * random.uniform() - 1)));
  const up = Float64Array.from({ length: D * m }, () => std * (std && random.normal()));
  return { down, downBias: new Float64Array(m), up, upBias: new Float64Array(D) };
}

/** One run: the frozen base, an adapter that follows the settings, and the points that it learns from. */
class Run {
  constructor(settings) {
    this.settings = settings;
    const random = randomNumbers(settings.seed + 1);
    this.points = drawn(settings.data, POINTS, random);
    this.unseen = drawn(settings.data, UNSEEN, random);
    this.weights = initial(settings, random);
    this.moments = Object.fromEntries(Object.entries(this.weights).map(([name, w]) => [name, [new Float64Array(w.length), new Float64Array(w.length)]]));
    this.gradients = Object.fromEntries(Object.entries(this.weights).map(([name, w]) => [name, new Float64Array(w.length)]));
    const room = length => new Float64Array(length);
    Object.assign(this, { h: room(D), before: room(settings.m), unit: room(settings.m), update: room(D), stream: room(D), wide: room(WIDE), out: room(D), logits: room(CLASSES) });
    this.step = 0;
    this.losses = [this.measure(this.points).loss];
  }

  /** How much more class 1 is expected than class 0 at (x, y), in logits; with `adapter` false by the base alone. */
  answer(x, y, adapter = true) {
    const { h, before, unit, update, stream, wide, out, logits, weights, settings } = this;
    for (let r = 0; r < D; r++) h[r] = BASE.embed[2 * r] * x + BASE.embed[2 * r + 1] * y + BASE.embedBias[r];
    if (adapter) {
      linear(weights.down, weights.downBias, h, before);
      for (let i = 0; i < unit.length; i++) unit[i] = ACTIVATIONS[settings.activation].f(before[i]);
      linear(weights.up, weights.upBias, unit, update);
      for (let r = 0; r < D; r++) stream[r] = settings.residual * h[r] + settings.scaling * update[r];
    } else stream.set(h);
    linear(BASE.wide, BASE.wideBias, stream, wide);
    for (let i = 0; i < WIDE; i++) wide[i] = Math.tanh(wide[i]);
    linear(BASE.narrow, BASE.narrowBias, wide, out);
    for (let r = 0; r < D; r++) out[r] += stream[r];
    linear(BASE.head, BASE.headBias, out, logits);
    return logits[1] - logits[0];
  }

  /** Mean cross entropy and the share of right answers. */
  measure({ x, y }, adapter = true) {
    let loss = 0, right = 0;
    for (let i = 0; i < y.length; i++) {
      const towards = this.answer(x[2 * i], x[2 * i + 1], adapter) * (y[i] ? 1 : -1);
      loss += towards > 0 ? Math.log1p(Math.exp(-towards)) : Math.log1p(Math.exp(towards)) - towards;
      right += towards > 0;
    }
    return { loss: loss / y.length, accuracy: right / y.length };
  }

  /** The gradients of the mean loss on the points that it learns from. */
  backward() {
    const { x, y } = this.points, { weights, gradients, settings, h, before, unit, wide } = this, m = settings.m;
    for (const gradient of Object.values(gradients)) gradient.fill(0);
    const outer = new Float64Array(CLASSES), inner = new Float64Array(D), broad = new Float64Array(WIDE), units = new Float64Array(m);
    for (let i = 0; i < y.length; i++) {
      const share = 1 / (1 + Math.exp(-this.answer(x[2 * i], x[2 * i + 1]))); // of class 1
      outer[1] = (share - y[i]) / y.length;
      outer[0] = -outer[1];
      inner.fill(0);
      back(BASE.head, outer, inner);
      broad.fill(0);
      back(BASE.narrow, inner, broad);
      for (let k = 0; k < WIDE; k++) broad[k] *= 1 - wide[k] * wide[k];
      back(BASE.wide, broad, inner); // added to what comes past the frozen layer
      for (let r = 0; r < D; r++) inner[r] *= settings.scaling;
      for (let r = 0; r < D; r++) {
        gradients.upBias[r] += inner[r];
        for (let k = 0; k < m; k++) gradients.up[r * m + k] += inner[r] * unit[k];
      }
      units.fill(0);
      back(weights.up, inner, units);
      for (let k = 0; k < m; k++) {
        const slope = units[k] * ACTIVATIONS[settings.activation].slope(before[k]);
        gradients.downBias[k] += slope;
        for (let c = 0; c < D; c++) gradients.down[k * D + c] += slope * h[c];
      }
    }
  }

  /** One step of Adam (betas 0.9 and 0.999, eps 1e-8) on all points. */
  train() {
    this.backward();
    this.step += 1;
    const size = this.settings.rate / (1 - 0.9 ** this.step), correction = Math.sqrt(1 - 0.999 ** this.step);
    for (const [name, weight] of Object.entries(this.weights)) {
      const gradient = this.gradients[name], [mean, square] = this.moments[name];
      for (let i = 0; i < weight.length; i++) {
        mean[i] += 0.1 * (gradient[i] - mean[i]);
        square[i] = 0.999 * square[i] + 0.001 * gradient[i] * gradient[i];
        weight[i] -= size * mean[i] / (Math.sqrt(square[i]) / correction + 1e-8);
      }
    }
    this.losses.push(this.measure(this.points).loss);
  }

  /** How many numbers are trained. */
  get trained() { return Object.values(this.weights).reduce((sum, weight) => sum + weight.length, 0); }

  /** For each unit the straight line a·x + b·y + c = 0 where it is zero, and how strongly it can push. */
  lines() {
    const { down, downBias, up } = this.weights, { m, scaling } = this.settings;
    return Array.from({ length: m }, (_, i) => {
      let [a, b, c, length] = [0, 0, downBias[i], 0];
      for (let r = 0; r < D; r++) {
        a += down[i * D + r] * BASE.embed[2 * r];
        b += down[i * D + r] * BASE.embed[2 * r + 1];
        c += down[i * D + r] * BASE.embedBias[r];
        length += up[r * m + i] ** 2;
      }
      return { a, b, c, strength: Math.abs(scaling) * Math.sqrt(length) * Math.hypot(a, b) };
    });
  }
}

const FROZEN = () => Object.values(BASE).reduce((sum, weight) => sum + weight.length, 0);

// --- the state in a string -------------------------------------------------------------------------------------------

const upTo = (first, last) => Array.from({ length: last - first + 1 }, (_, i) => first + i);
/** What can be set, in the order of the string: a part is the mark and the value. `live` ones act without a new run. */
const KNOBS = [
  { key: "m", label: N_`bottleneck m`, mark: "m", values: upTo(1, 8), title: N_`how many numbers fit through the adapter` },
  { key: "activation", label: N_`activation`, mark: "", values: Object.keys(ACTIVATIONS), title: N_`the bend in the bottleneck` },
  { key: "start", label: N_`start`, mark: "", values: ["zero", "std0.01", "std1"], title: N_`up_project at zero, or both weights drawn with this standard deviation` },
  { key: "rate", label: N_`learning rate`, mark: "lr", values: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1], live: true, title: N_`acts at once` },
  { key: "residual", label: N_`residual`, mark: "res", values: [0, 1], title: N_`whether h is handed on past the bottleneck` },
  { key: "scaling", label: N_`scaling s`, mark: "x", values: [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 4], live: true, optional: 1, title: N_`a factor on the update; acts at once` },
  { key: "data", label: N_`data set`, mark: "", values: Object.keys(DATA), title: N_`what is to be learnt` },
  { key: "seed", label: N_`seed`, mark: "s", values: upTo(0, 9), title: N_`other points and other initial weights` },
];
const DEFAULT = "m4-gelu-zero-lr0.03-res1-spirals-s0";

/** Settings from a state such as DEFAULT; "-x2" after "res1" scales, "-hide.rate.seed" at the end hides knobs. */
function parse(text) {
  // What letters and word processors make of a string: other dashes, blanks, quotation marks, capitals.
  const parts = text.replace(/[‐‑‒–—−]/g, "-").replace(/[\s"'“”‘’]/g, "").toLowerCase().split("-"), settings = { hidden: [] };
  const quoted = part => _`“${part.length > 24 ? `${part.slice(0, 24)}…` : part}”`;
  for (const { key, label, mark, values, optional } of KNOBS) {
    if (optional !== undefined && !(parts[0] ?? "").startsWith(mark)) { settings[key] = optional; continue; }
    const part = parts.shift(), value = values.find(one => `${mark}${one}` === part), there = values.map(one => mark + one).join(", ");
    if (part === undefined) throw new Error(_`The state ends before its ${_(label)}: expected one of ${there}.`);
    if (value === undefined) throw new Error(_`${quoted(part)} is no ${_(label)}: expected one of ${there}.`);
    settings[key] = value;
  }
  const names = KNOBS.map(({ key }) => key);
  if (parts.length && parts[0].startsWith("hide.")) settings.hidden = parts.shift().split(".").slice(1);
  const unknown = settings.hidden.find(name => !names.includes(name));
  if (unknown !== undefined) throw new Error(_`${quoted(unknown)} cannot be hidden: expected one of ${names.join(", ")}.`);
  if (parts.length) throw new Error(_`${quoted(parts[0])} is too much: expected the end after the seed, or hide with names, such as hide.rate.seed.`);
  return settings;
}

/** The state of settings: `parse` reversed. */
function format(settings) {
  const parts = KNOBS.filter(({ key, optional }) => settings[key] !== optional).map(({ key, mark }) => `${mark}${settings[key]}`);
  return [...parts, ...(settings.hidden.length ? [["hide", ...settings.hidden].join(".")] : [])].join("-");
}

// --- what is drawn ---------------------------------------------------------------------------------------------------

const REACH = 2, SIDE = 440, CELLS = 64; // the plane from -2 to 2, its size on the page, and its samples along a side
const place = (x, y) => [(x + REACH) / (2 * REACH) * SIDE, (REACH - y) / (2 * REACH) * SIDE];

/** The answers of a run at the middle of CELLS × CELLS cells, from the upper left. */
function surface(run, adapter = true) {
  const values = new Float64Array(CELLS * CELLS), step = 2 * REACH / CELLS;
  for (let r = 0, k = 0; r < CELLS; r++) for (let c = 0; c < CELLS; c++) values[k++] = run.answer((c + 0.5) * step - REACH, REACH - (r + 0.5) * step, adapter);
  return values;
}

/** Where a surface is zero, as an SVG path: in each square of four samples, from edge to edge. */
function border(values) {
  const unit = SIDE / CELLS, pieces = [];
  for (let r = 0; r + 1 < CELLS; r++) for (let c = 0; c + 1 < CELLS; c++) {
    const corners = [[r, c], [r, c + 1], [r + 1, c + 1], [r + 1, c]], ends = [];
    corners.forEach(([r0, c0], i) => {
      const [r1, c1] = corners[(i + 1) % 4], from = values[r0 * CELLS + c0], to = values[r1 * CELLS + c1];
      if ((from > 0) === (to > 0)) return;
      const share = from / (from - to);
      ends.push(`${((c0 + share * (c1 - c0) + 0.5) * unit).toFixed(1)} ${((r0 + share * (r1 - r0) + 0.5) * unit).toFixed(1)}`);
    });
    for (let i = 0; i + 1 < ends.length; i += 2) pieces.push(`M${ends[i]}L${ends[i + 1]}`);
  }
  return pieces.join("");
}

/** A unit's line in the plane as two ends on the page and an arrow to where it grows; null where it lies outside. */
function drawnLine({ a, b, c }) {
  const size = Math.hypot(a, b);
  if (size < 1e-9 || Math.abs(c) / size > REACH * 1.35) return null;
  const [nx, ny, off] = [a / size, b / size, -c / size], ends = [], far = REACH * 3;
  let [low, high] = [-far, far]; // along the line, within the square
  for (const [at, along] of [[nx * off, -ny], [ny * off, nx]]) {
    if (Math.abs(along) < 1e-9) { if (Math.abs(at) > REACH) return null; continue; }
    const [one, other] = [(-REACH - at) / along, (REACH - at) / along].sort((p, q) => p - q);
    low = Math.max(low, one); high = Math.min(high, other);
  }
  if (low >= high) return null;
  for (const t of [low, high]) ends.push(place(nx * off - ny * t, ny * off + nx * t));
  const middle = Math.min(Math.max(0, low + 0.2), high - 0.2), [x, y] = place(nx * off - ny * middle, ny * off + nx * middle);
  const [tx, ty] = [x + 26 * nx, y - 26 * ny], head = turn => { const angle = Math.atan2(-ny, nx) + turn; return `${(tx - 9 * Math.cos(angle)).toFixed(1)} ${(ty - 9 * Math.sin(angle)).toFixed(1)}`; };
  const [[x0, y0], [x1, y1]] = ends;
  return { line: `M${x0.toFixed(1)} ${y0.toFixed(1)}L${x1.toFixed(1)} ${y1.toFixed(1)}`, arrow: `M${x.toFixed(1)} ${y.toFixed(1)}L${tx.toFixed(1)} ${ty.toFixed(1)}M${head(0.45)}L${tx.toFixed(1)} ${ty.toFixed(1)}L${head(-0.45)}` };
}

/** What a still picture shows after some steps, as plain lists: for `data/make_playground.py`. */
function snapshot(state, steps) {
  const run = new Run(parse(state)), start = run.measure(run.unseen, false).accuracy;
  for (let i = 0; i < steps; i++) run.train();
  const weights = Object.fromEntries(Object.entries(run.weights).map(([name, weight]) => [name, [...weight]]));
  return {
    state, steps, reach: REACH, x: [...run.points.x], y: [...run.points.y], base: [...surface(run, false)], now: [...surface(run)], lines: run.lines(), losses: run.losses,
    weights, baseAccuracy: start, accuracy: run.measure(run.unseen).accuracy, trained: run.trained, frozen: FROZEN(),
  };
}
// --- the page --------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
const TINTS = [[213, 94, 0], [0, 158, 115]]; // of the classes on the plane, over the paper of either theme
const DARK = "--ink: #56b4e9; --one: #ff8b3d; --two: #35d0a5; --on: #0b1a24; --words: var(--jp-content-font-color1, var(--color-foreground-primary, #eee)); --paper: var(--jp-layout-color0, var(--color-background-primary, #131416));";
const STYLE = `
.plg { --ink: #0072b2; --one: #d55e00; --two: #009e73; --on: #fff; --words: var(--jp-content-font-color1, var(--color-foreground-primary, #222)); --paper: var(--jp-layout-color0, var(--color-background-primary, #fff));
  color: var(--words); background: var(--paper);
  font: 14px/1.4 var(--jp-content-font-family, var(--font-stack, system-ui, sans-serif)); width: 100%; max-width: 1000px; padding: 10px 12px; box-sizing: border-box; container-type: inline-size; }
@media (prefers-color-scheme: dark) { body:not([data-theme="light"]):not([data-jp-theme-light]) .plg { ${DARK} } }
[data-jp-theme-light="false"] .plg, [data-theme="dark"] .plg { ${DARK} }
.plg *, .plg *::before { box-sizing: border-box; } .plg [hidden] { display: none !important; } .plg svg { display: block; width: 100%; height: auto; overflow: visible; }
.plg strong { font-size: 17px; margin-right: 4px; } .plg p { margin: 0; max-width: none; } .plg .soft { opacity: .82; }
.plg .sides { display: flex; flex-wrap: wrap; gap: 10px 24px; margin-top: 8px; } .plg .sides > div { flex: 1 1 380px; min-width: 0; } .plg .sides > div:first-child { max-width: 480px; }
.plg .line { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; margin: 6px 0; }
.plg button, .plg input { font: inherit; color: inherit; background: var(--jp-layout-color1, transparent); min-height: 28px; margin: 0; border: 1px solid color-mix(in srgb, currentColor 38%, transparent); border-radius: 6px; padding: 2px 9px; }
.plg button { cursor: pointer; } .plg button[aria-pressed=true] { background: var(--ink); color: var(--on); border-color: var(--ink); } .plg button:disabled { opacity: .45; cursor: default; }
.plg .play { background: var(--ink); color: var(--on); border-color: var(--ink); font-weight: 700; min-width: 92px; min-height: 32px; } .plg .choice { display: inline-flex; flex-wrap: wrap; }
.plg .choice button { border-radius: 0; margin-left: -1px; } .plg .choice button:first-of-type { border-radius: 6px 0 0 6px; } .plg .choice button:last-of-type { border-radius: 0 6px 6px 0; }
.plg :focus-visible { outline: 2px solid var(--one); outline-offset: 1px; } .plg input[type=range] { accent-color: var(--ink); flex: 1 1 90px; min-width: 70px; padding: 0; border: 0; background: none; min-height: 24px; }
.plg input[type=checkbox] { accent-color: var(--ink); width: 17px; min-height: 17px; } .plg .knobs { display: grid; grid-template-columns: 1fr 1fr; gap: 2px 20px; margin-top: 6px; }
.plg .knob { display: flex; gap: 8px; align-items: center; min-height: 30px; min-width: 0; } .plg .knob > span:first-child { flex: 0 0 96px; white-space: nowrap; } .plg .half > span:first-child { flex: 0 0 44px; } .plg .knob output { flex: 0 0 40px; font-variant-numeric: tabular-nums; } .plg .all { grid-column: 1 / -1; flex-wrap: wrap; }
.plg .plane { position: relative; aspect-ratio: 1; border-radius: 8px; overflow: hidden; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); } .plg .plane canvas, .plg .plane svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.plg text { fill: currentColor; font-size: 12.5px; } .plg .blue { fill: var(--ink); } .plg .frozen { fill: color-mix(in srgb, currentColor 15%, transparent); stroke: currentColor; stroke-opacity: .45; } .plg .wire { fill: none; stroke: currentColor; stroke-width: 1.7; }
.plg .own { fill: color-mix(in srgb, var(--ink) 22%, transparent); stroke: var(--ink); stroke-width: 2; } .plg .thin { fill: none; stroke: var(--ink); stroke-width: 2; } .plg .off { opacity: .3; stroke-dasharray: 3 5; }
.plg .point { stroke: var(--paper); stroke-width: 1; } .plg .point.wrong { stroke: currentColor; stroke-width: 2; }
.plg .legend { display: flex; flex-wrap: wrap; gap: 0 14px; font-size: 12.5px; margin-top: 5px; } .plg .legend span { display: inline-flex; gap: 5px; align-items: center; } .plg .legend svg { width: 26px; height: 12px; flex: none; }
.plg .big { font-size: 30px; font-weight: 700; line-height: 1; font-variant-numeric: tabular-nums; flex: 0 0 100px; } .plg .small { font-size: 12.5px; } .plg .state { flex: 1 1 230px; min-width: 0; font-family: var(--jp-code-font-family, ui-monospace, monospace); font-size: 12.5px; }
.plg .error { color: var(--jp-error-color1, var(--one)); font-weight: 700; flex-basis: 100%; } .plg .said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@container (max-width: 940px) { .plg .knobs { gap: 2px 12px; } .plg .knob { gap: 6px; font-size: 13px; } .plg .knob > span:first-child { flex-basis: 88px; } .plg .half > span:first-child { flex-basis: 34px; } .plg .knob output { flex-basis: 32px; } .plg .knob input[type=range] { min-width: 44px; flex-basis: 44px; } .plg .knob button { padding: 2px 7px; } .plg .half .choice { flex-wrap: nowrap; white-space: nowrap; } }
@container (max-width: 520px) { .plg .knobs { grid-template-columns: 1fr; } .plg .knob button { padding: 2px 8px; } .plg .sides > div { flex-basis: 100%; } }`;

function make(parent, name, attributes = {}, text = "") {
  const drawn = ["svg", "g", "rect", "circle", "path", "text", "title"].includes(name);
  const element = drawn ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== "") element.textContent = text;
  parent.append(element);
  return element;
}

const percent = share => `${(100 * share).toFixed(0)}\u00a0%`;

/** How the network is wired: grey is frozen, blue is trained; the funnel is as narrow as m. */
function drawWiring(svg, settings, trained) {
  const { m, activation, residual, scaling } = settings, low = 86, thin = 3 + 31 * m / D;
  svg.replaceChildren();
  const bend = _(ACTIVATIONS[activation].label), handed = residual ? _`adds ${scaling} times the result to h` : _`hands on ${scaling} times the result; h itself is not handed on`;
  svg.setAttribute("aria-label", _`A point goes through a frozen layer to the stream h of ${D} numbers. The adapter narrows them to ${m}, bends them (${bend}), widens them and ${handed}. Frozen layers turn that into one of two classes.`);
  const wire = (d, more = "") => make(svg, "path", { d, class: `wire ${more}` }), word = (x, y, text, more = {}) => make(svg, "text", { x, y, "text-anchor": "middle", ...more }, text);
  wire("M30 30H108"); wire(residual ? "M279 30H404" : "M300 30H404"); wire("M108 30V86H126"); wire("M236 86H268V41");
  wire("M108 30H257", residual ? "" : "off");
  if (!residual) word(182, 35, "✕", { style: "font-size: 16px" });
  word(15, 34, "x, y");
  for (const [x, width, text] of [[38, 50, `2 → ${D}`], [290, 104, `${D} → ${WIDE} → ${D} → 2`]]) {
    make(svg, "rect", { x, y: 16, width, height: 28, rx: 5, class: "frozen", style: "stroke: none; fill: var(--paper)" });
    make(svg, "rect", { x, y: 16, width, height: 28, rx: 5, class: "frozen" });
    word(x + width / 2, 34, text);
  }
  word(108, 22, "h"); make(svg, "circle", { cx: 108, cy: 30, r: 2.5, fill: "currentColor" });
  word(350, 60, _`${FROZEN()} numbers, frozen`, { class: "soft", style: "font-size: 12px" });
  if (residual) { make(svg, "circle", { cx: 268, cy: 30, r: 11, class: "frozen" }); word(268, 35, "+", { style: "font-size: 16px" }); } else wire("M268 41V30H290");
  const half = thin / 2;
  make(svg, "path", { d: `M126 ${low - 17}L156 ${low - half}V${low + half}L126 ${low + 17}Z`, class: "own" });
  make(svg, "path", { d: `M236 ${low - 17}L206 ${low - half}V${low + half}L236 ${low + 17}Z`, class: "own" });
  wire(`M156 ${low}H166`); wire(`M196 ${low}H206`);
  make(svg, "rect", { x: 166, y: low - 15, width: 30, height: 30, rx: 5, class: "own" });
  const f = ACTIVATIONS[activation].f, curve = upTo(-12, 12).map(i => `${(181 + i).toFixed(1)} ${(low + 5 - 5 * Math.max(-2.6, Math.min(2.6, f(i / 4)))).toFixed(1)}`);
  make(svg, "path", { d: `M${curve.join("L")}`, class: "thin", style: "stroke: currentColor" });
  word(141, low + 31, _`down`, { style: "font-size: 12px" }); word(181, low + 31, activation === "identity" ? _`no bend` : bend, { style: "font-size: 12px" }); word(222, low + 31, _`up`, { style: "font-size: 12px" });
  if (scaling !== 1) word(250, low - 5, `×${scaling}`, { style: "font-size: 12px" });
  word(290, low + 1, _`the adapter, m = ${m}:`, { "text-anchor": "start", style: "font-weight: 700" }); word(290, low + 17, _`${trained} numbers, trained`, { "text-anchor": "start", style: "font-weight: 700" });
  make(svg, "circle", { cx: 416, cy: 30, r: 6, style: "fill: var(--one)" }); make(svg, "rect", { x: 426, y: 24, width: 12, height: 12, style: "fill: var(--two)" });
}

/** The loss so far, and pale the run before; the axis is logarithmic. */
function drawLoss(svg, losses, before) {
  svg.replaceChildren();
  const [left, right, top, bottom] = [34, 432, 8, 84], steps = Math.max(200, losses.length - 1, Math.min(before.length - 1, 2 * losses.length));
  const pale = before.slice(0, steps + 1), highest = Math.max(...losses, ...pale);
  const powers = Math.max(4, Math.min(9, Math.ceil(Math.log10(highest) + 3))); // of ten: from 0.001 to 10, or as high as the loss has been
  const y = loss => top + (bottom - top) * (1 - Math.log10(Math.max(1e-3, Math.min(10 ** (powers - 3), loss)) / 1e-3) / powers), x = step => left + (right - left) * step / steps;
  for (let power = 0; power <= powers; power++) {
    const loss = 10 ** (power - 3);
    make(svg, "path", { d: `M${left} ${y(loss)}H${right}`, class: "wire", style: "stroke-width: 1; stroke-opacity: .18" });
    if (powers < 6 || (powers - power) % 2 === 0) make(svg, "text", { x: left - 5, y: y(loss) + 4, "text-anchor": "end", style: "font-size: 11px" }, `${Number(loss.toPrecision(1))}`);
  }
  make(svg, "text", { x: right, y: top + 11, "text-anchor": "end", style: "font-size: 11px; opacity: .8" }, _`loss, logarithmic`);
  make(svg, "text", { x: left, y: bottom + 15, style: "font-size: 11px" }, "0"); make(svg, "text", { x: right, y: bottom + 15, "text-anchor": "end", style: "font-size: 11px" }, _`${steps} steps`);
  const path = values => { // at most 400 corners
    const every = Math.max(1, Math.ceil(values.length / 400)), corners = [];
    values.forEach((value, i) => { if (i % every === 0 || i === values.length - 1) corners.push(`${x(i).toFixed(1)} ${y(value).toFixed(1)}`); });
    return `M${corners.join("L")}`;
  };
  if (before.length > 1) {
    make(svg, "path", { d: path(pale), class: "wire", style: "stroke-opacity: .35" });
    make(svg, "text", { x: (left + right) / 2, y: bottom + 15, "text-anchor": "middle", style: "font-size: 11px; opacity: .8" }, _`pale: the run before`);
  }
  make(svg, "path", { d: path(losses), class: "thin", style: "stroke-width: 2.4" });
  const last = losses[losses.length - 1];
  make(svg, "circle", { cx: x(losses.length - 1), cy: y(last), r: 4, class: "blue" });
  svg.setAttribute("aria-label", _`Loss against steps: ${losses[0].toFixed(2)} at the start, ${last.toFixed(3)} after ${losses.length - 1} steps`);
}

function render({ model, el }) {
  el.classList.add("plg");
  translations = model.get("words") ?? {};
  el.replaceChildren();
  make(el, "style", {}, STYLE);
  let settings, run, baseSurface, before = [], playing = 0, last = 0, owed = 0, complaint = "";
  try { settings = parse(model.get("state")); } catch (error) { complaint = error.message; settings = parse(DEFAULT); }
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  const title = make(el, "p");
  make(title, "strong", {}, _`Playground`);
  title.append(" ");
  make(title, "span", { class: "soft" }, _`The grey network is frozen. It has learnt the moons, and nothing else. Press Play: only the blue adapter learns.`);
  const sides = make(el, "div", { class: "sides" }), left = make(sides, "div"), right = make(sides, "div");
  const plane = make(left, "div", { class: "plane" }), canvas = make(plane, "canvas", { width: CELLS, height: CELLS, "aria-hidden": "true" }), over = make(plane, "svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img" });
  const baseBorder = make(over, "path", { class: "wire", style: "stroke-dasharray: 5 5; stroke-width: 2; stroke-opacity: .75" }), points = make(over, "g"), nowBorder = make(over, "path", { class: "wire", style: "stroke-width: 3" }), lines = make(over, "g");
  const legend = make(left, "div", { class: "legend" });
  const entry = (draw, text) => { const one = make(legend, "span"); draw(make(one, "svg", { viewBox: "0 0 26 12", "aria-hidden": "true" })); one.append(text); };
  entry(svg => make(svg, "path", { d: "M0 6H26", class: "wire", style: "stroke-dasharray: 5 4; stroke-width: 2" }), _`border of the frozen base`);
  entry(svg => make(svg, "path", { d: "M0 6H26", class: "wire", style: "stroke-width: 3" }), _`border now`);
  entry(svg => make(svg, "path", { d: "M0 9H26M13 9V1M10 4L13 1L16 4", class: "thin" }), _`a unit of the bottleneck is 0; it grows along the arrow`);
  entry(svg => { make(svg, "circle", { cx: 7, cy: 6, r: 4, class: "point wrong", style: "fill: var(--one)" }); make(svg, "rect", { x: 16, y: 2, width: 8, height: 8, class: "point wrong", style: "fill: var(--two)" }); }, _`answered wrong`);

  const wiring = make(right, "svg", { viewBox: "0 8 440 112", role: "img" });
  const buttons = make(right, "div", { class: "line" });
  const button = (parent, text, label, click, more = {}) => { const one = make(parent, "button", { type: "button", "aria-label": label, title: label, ...more }, text); one.addEventListener("click", click); return one; };
  const playButton = button(buttons, _`▶ Play`, _`Play: train`, () => (playing ? pause() : play()), { class: "play" });
  const stepButton = button(buttons, _`Step`, _`Step: train one step`, () => { pause(); train(1); draw(true); });
  button(buttons, _`Reset`, _`Reset: back to the first step`, () => restart());
  const at = make(buttons, "span", { class: "soft", style: "font-variant-numeric: tabular-nums" });
  const numbers = make(right, "div", { class: "line", style: "flex-wrap: nowrap" }), big = make(numbers, "span", { class: "big" }), about = make(numbers, "span", { class: "small" });
  const lossSvg = make(right, "svg", { viewBox: "0 0 440 102", role: "img" });
  const knobs = make(right, "div", { class: "knobs" });
  const said = make(el, "div", { class: "said", role: "status" });

  /** Set one knob: a run begins anew unless the knob acts at once. */
  function set(knob, value) {
    if (settings[knob.key] === value) return;
    settings[knob.key] = value;
    if (knob.live) { tell(); drawWiring(wiring, settings, run.trained); draw(!playing); } else restart(true);
    showKnobs();
  }
  const starts = { zero: _`zero`, "std0.01": _`small`, std1: _`std 1` };
  const nameOf = (knob, value) => (knob.key === "data" ? _(DATA[value].label) : knob.key === "activation" ? _(ACTIVATIONS[value].label) : knob.key === "start" ? starts[value] : `${value}`);
  const controls = {};
  const slider = (knob, parent) => {
    const holder = make(parent, "label", { class: "knob", title: _(knob.title) });
    make(holder, "span", {}, _(knob.label));
    const range = make(holder, "input", { type: "range", min: 0, max: knob.values.length - 1, "aria-label": _(knob.label) }), output = make(holder, "output");
    const move = index => set(knob, knob.values[Math.max(0, Math.min(knob.values.length - 1, index))]);
    range.addEventListener("input", () => move(Number(range.value)));
    range.addEventListener("keydown", event => { // JupyterLab takes the arrow keys from a range, for its headings
      const index = knob.values.indexOf(settings[knob.key]), to = { ArrowRight: index + 1, ArrowUp: index + 1, ArrowLeft: index - 1, ArrowDown: index - 1, Home: 0, End: Infinity }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      move(to);
    });
    return { holder, show: value => { range.value = knob.values.indexOf(value); range.setAttribute("aria-valuetext", nameOf(knob, value)); output.textContent = nameOf(knob, value); } };
  };
  const choice = (knob, parent) => {
    const holder = make(parent, "div", { class: `knob ${knob.key === "start" ? "half" : "all"}`, title: _(knob.title) });
    make(holder, "span", {}, _(knob.label));
    const group = make(holder, "span", { class: "choice", role: "group", "aria-label": _(knob.label) });
    const all = knob.values.map(value => button(group, nameOf(knob, value), nameOf(knob, value), () => set(knob, value), knob.key === "data" ? { title: _(DATA[value].title) } : {}));
    return { holder, show: value => all.forEach((one, i) => one.setAttribute("aria-pressed", knob.values[i] === value)) };
  };
  const check = (knob, parent) => {
    const holder = make(parent, "label", { class: "knob", title: _(knob.title) });
    make(holder, "span", {}, _(knob.label));
    const box = make(holder, "input", { type: "checkbox", "aria-label": _(knob.label) }), word = make(holder, "span");
    box.addEventListener("change", () => set(knob, box.checked ? 1 : 0));
    return { holder, show: value => { box.checked = value === 1; word.textContent = value ? _`on` : _`off`; } };
  };
  const kinds = { data: choice, activation: choice, start: choice, residual: check };
  for (const key of ["data", "activation", "m", "rate", "start", "residual", "scaling", "seed"]) {
    const knob = KNOBS.find(one => one.key === key);
    controls[key] = (kinds[key] ?? slider)(knob, knobs);
  }
  const showKnobs = () => { for (const [key, control] of Object.entries(controls)) { control.show(settings[key]); control.holder.hidden = settings.hidden.includes(key); } };

  const shareLine = make(right, "div", { class: "line" }), stateLabel = make(shareLine, "label", { class: "line", style: "margin: 0; flex: 1 1 300px; flex-wrap: nowrap" }, _`state`);
  const stateField = make(stateLabel, "input", { class: "state", spellcheck: "false", autocomplete: "off", "aria-label": _`state: copy it, or paste another and press Enter`, title: _`Copy it, or paste another and press Enter. For teachers: with -hide.rate.seed at the end these two knobs are not shown.` });
  const copy = button(shareLine, _`Copy`, _`Copy the state`, async () => {
    try { await navigator.clipboard.writeText(format(settings)); } catch { stateField.select(); document.execCommand("copy"); }
    copy.textContent = _`Copied`;
    setTimeout(() => { copy.textContent = _`Copy`; }, 1500);
  });
  const error = make(shareLine, "div", { class: "error", role: "alert" });
  const restore = () => { error.textContent = ""; stateField.value = format(settings); stateField.removeAttribute("aria-invalid"); };
  const take = text => {
    try {
      const asked = parse(text);
      if (format(asked) === format(settings)) return restore();
      settings = asked;
      restart(true);
      showKnobs();
    } catch (wrong) {
      error.textContent = `${wrong.message} ${_`The run is still ${format(settings)}; Escape brings that back.`}`;
      stateField.value = text;
      stateField.setAttribute("aria-invalid", "true");
    }
    return undefined;
  };
  stateField.addEventListener("change", () => take(stateField.value));
  stateField.addEventListener("keydown", event => { event.stopPropagation(); if (event.key === "Enter") { event.preventDefault(); take(stateField.value); } else if (event.key === "Escape") restore(); }); // else JupyterLab would act

  /** Let the kernel know, where there is one. */
  function share() {
    if (model.get("state") === format(settings)) return;
    model.set("state", format(settings));
    try { model.save_changes(); } catch { /* no kernel: the page goes on alone */ }
  }
  const tell = () => { restore(); share(); };

  /** A new run, with the settings as they are; one that is played is played on. */
  function restart(other = false) {
    if (run && run.step > 0) before = run.losses;
    run = new Run(settings);
    run.settings = settings; // so that rate and scaling act at once
    owed = 0;
    tell();
    baseSurface ??= surface(run, false);
    baseBorder.setAttribute("d", border(baseSurface));
    points.replaceChildren();
    const { x, y } = run.points;
    run.marks = Array.from(y, (label, i) => {
      const [px, py] = place(x[2 * i], x[2 * i + 1]);
      return label ? make(points, "rect", { x: px - 4, y: py - 4, width: 8, height: 8, style: "fill: var(--two)" }) : make(points, "circle", { cx: px, cy: py, r: 4.5, style: "fill: var(--one)" });
    });
    drawWiring(wiring, settings, run.trained);
    run.alone = run.measure(run.unseen, false).accuracy;
    if (!other) pause();
    draw(!playing);
  }

  function draw(aloud = false) {
    const values = surface(run), image = new ImageData(CELLS, CELLS);
    for (let i = 0; i < values.length; i++) {
      const sure = Math.abs(2 / (1 + Math.exp(-values[i])) - 1);
      for (let part = 0; part < 3; part++) image.data[4 * i + part] = TINTS[values[i] > 0 ? 1 : 0][part];
      image.data[4 * i + 3] = 255 * (0.08 + 0.34 * sure);
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    nowBorder.setAttribute("d", border(values));
    const { x, y } = run.points;
    run.marks.forEach((mark, i) => mark.setAttribute("class", (run.answer(x[2 * i], x[2 * i + 1]) > 0) === (y[i] === 1) ? "point" : "point wrong"));
    const all = run.lines(), most = Math.max(...all.map(one => one.strength), 1e-9);
    lines.replaceChildren();
    for (const one of all) {
      const drawn = drawnLine(one), strong = one.strength / most;
      if (!drawn) continue;
      make(lines, "path", { d: drawn.line, class: "thin", style: `stroke-width: ${(1 + 1.8 * strong).toFixed(2)}; stroke-opacity: ${(0.45 + 0.55 * strong).toFixed(2)}` });
      make(lines, "path", { d: drawn.arrow, class: "thin", style: "stroke-width: 2.6" });
    }
    const { accuracy } = run.measure(run.unseen), loss = run.losses[run.step] = run.measure(run.points).loss; // scaling acts at once
    drawLoss(lossSvg, run.losses, before);
    at.textContent = run.step >= MOST ? _`step ${run.step}: the run ends here` : _`step ${run.step}`;
    stepButton.disabled = playButton.disabled = run.step >= MOST;
    big.textContent = percent(accuracy);
    about.textContent = _`of ${UNSEEN} unseen points are right, by the frozen base alone ${percent(run.alone)}. Loss on the ${POINTS} points it learns from: ${loss.toPrecision(2)}`;
    const words = _`Step ${run.step}: ${percent(accuracy)} of ${UNSEEN} unseen points are right, by the frozen base alone ${percent(run.alone)}. Loss ${loss.toPrecision(2)}. ${run.trained} numbers are trained, ${FROZEN()} are frozen.`;
    over.setAttribute("aria-label", `${_`The plane with ${POINTS} points of two classes (${_(DATA[settings.data].label)}) and the border between the two answers.`} ${words}`);
    if (aloud) said.textContent = words; // not in every frame: a screen reader would never come to an end
  }

  function train(steps) {
    for (let i = 0; i < steps && run.step < MOST; i++) run.train();
  }

  function play() {
    if (run.step >= MOST) return;
    last = performance.now();
    owed = 1;
    playing = requestAnimationFrame(frame);
    playButton.textContent = _`❚❚ Pause`;
    playButton.setAttribute("aria-label", _`Pause`);
  }

  function pause() {
    if (playing) cancelAnimationFrame(playing);
    playing = 0;
    playButton.textContent = _`▶ Play`;
    playButton.setAttribute("aria-label", _`Play: train`);
    if (run) draw(true);
  }

  /** Sixty steps a second, as far as the machine can; who wants little motion sees a new picture twice a second. */
  function frame(now) {
    if (!el.isConnected) return pause();
    owed = Math.min(60, owed + 0.06 * Math.max(0, now - last));
    last = now;
    if (owed >= (calm.matches ? 30 : 1)) {
      const until = performance.now() + 25;
      while (owed >= 1 && (calm.matches || performance.now() < until)) { train(1); owed -= 1; }
      draw();
    }
    if (run.step >= MOST) return pause();
    playing = requestAnimationFrame(frame);
    return undefined;
  }

  const follow = () => { if (model.get("state") !== format(settings)) { take(model.get("state")); queueMicrotask(share); } }; // within this change it would be none
  model.on("change:state", follow);
  restart();
  showKnobs();
  error.textContent = complaint;
  return () => { if (playing) cancelAnimationFrame(playing); playing = 0; model.off("change:state", follow); };
}

/** Show the playground in an element of any page, without a kernel; `words` are translations by the English. */
function mount(el, state = DEFAULT, words = {}) {
  const values = { state, words };
  return render({ el, model: { get: name => values[name], set: (name, value) => { values[name] = value; }, save_changes() {}, on() {}, off() {} } });
}

export default { render, mount, Run, parse, format, erf, snapshot, KNOBS, DEFAULT, BASE };
