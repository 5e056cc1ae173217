// Reading pairs of knees: keys, wheel and mouse; answers go to the server one by one.

import { Knee } from "/knee.js";
import { decode } from "/png.js";

const AT_ONCE = 6; // requests
const token = location.hash.slice(1);
const find = (selector) => document.querySelector(selector);
const knees = [...document.querySelectorAll(".knee")].map((section) => new Knee(section));
const plain = () => ({ brightness: 0, contrast: 0, invert: false, zoom: 1, x: 0, y: 0 });
const state = { session: null, number: 0, choice: null, confidence: null, look: plain(), linked: true, active: 0, loads: new Map(),
  seconds: 0, since: null, busy: false, scale: 1 };

async function ask(path, body) {
  let answer;
  try {
    const headers = { "X-Genu-Token": token, ...(body ? { "Content-Type": "application/json" } : {}) };
    answer = await fetch(path, { headers, ...(body ? { method: "POST", body: JSON.stringify(body) } : {}) });
  } catch {
    trouble("The command that serves this page has ended.",
      "What you saved is kept. Start it again; it opens a page that goes on where you stopped.");
    throw new Error("no server");
  }
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (answer.status === 403) trouble("This page cannot be used.", "It is of an earlier start, or of none: open the address that "
    + "genu-train readers serve printed.");
  throw new Error(error);
}

function trouble(title, text) {
  find("#trouble-title").textContent = title;
  find("#trouble-text").textContent = text;
  find("#trouble").hidden = false;
  if (find("#help").open) find("#help").close();
}

function say(text, bad = false) {
  find("#said").textContent = text;
  find("#said").classList.toggle("bad", bad);
}

// Loading: middle slices first, both knees in turn, a few requests at a time.

function load(number) {
  if (state.loads.has(number)) return state.loads.get(number);
  const started = { number, gone: false };
  started.pair = ask(`/api/pair/${number}`).then((answer) => answer.json()).then((pair) => {
    const jobs = [];
    const slices = ["first", "second"].map((which) => Array.from({ length: pair[which].slices }, (_, place) =>
      new Promise((resolve, reject) => jobs.push({ which, place, middle: Math.abs(place - (pair[which].slices - 1) / 2), resolve, reject }))));
    slices.flat().forEach((one) => one.catch(() => {}));
    jobs.sort((one, other) => one.middle - other.middle);
    const work = async () => {
      for (let job = jobs.shift(); job && !started.gone; job = jobs.shift()) {
        try {
          const answer = await ask(`/api/pair/${number}/${job.which}/${job.place + 1}.png`);
          job.resolve(await decode(await answer.arrayBuffer()));
        } catch (error) {
          job.reject(error);
          if (!started.gone) say(`A slice cannot be shown (${error.message}): load the page again.`, true);
          started.gone = true;
        }
      }
    };
    started.done = Promise.all(Array.from({ length: AT_ONCE }, work));
    return { ...pair, slices };
  });
  started.pair.catch(() => state.loads.delete(number));
  state.loads.set(number, started);
  return started;
}

async function open(number) {
  pause();
  const total = state.session.total;
  find("#end").hidden = number <= total;
  if (number > total) { state.number = total + 1; tell(); return; }
  for (const [known, one] of state.loads) if (known !== number && known !== number + 1) { one.gone = true; state.loads.delete(known); }
  const loading = load(number);
  const pair = await loading.pair;
  const answer = state.session.answers[number - 1];
  Object.assign(state, { number, seconds: 0, look: plain(), choice: answer?.choice ?? null, confidence: answer?.confidence ?? null });
  knees.forEach((knee, place) => {
    knee.onready = draw;
    knee.show(pair[["first", "second"][place]], pair.slices[place]);
  });
  say(answer ? "You have answered this pair; saving again replaces the answer." : "");
  tell();
  fit();
  go();
  loading.done?.then(() => {
    const next = number + 1;
    if (state.number === number && next <= total && knees.every((knee) => knee.whole)) load(next).pair.catch(() => {});
  });
}

// The clock stands while the page cannot be seen, or the help covers it.

function go() { if (state.since === null && !document.hidden && !find("#help").open && state.number <= state.session.total) state.since = performance.now(); }

function pause() {
  if (state.since !== null) state.seconds += (performance.now() - state.since) / 1000;
  state.since = null;
}

function fit() {
  if (!knees[0].about || state.number > state.session.total) return;
  state.scale = Math.min(...knees.map((knee) => knee.fits()));
  draw();
}

function draw() { knees.forEach((knee) => knee.draw(state.look, state.scale)); }

function tell() {
  const { session, number, choice, confidence, look } = state;
  const done = session.answers.filter((one) => one !== null).length;
  find("#count").textContent = number > session.total ? `${session.total} pairs` : `Pair ${number} of ${session.total}`;
  find("#progress").value = done / session.total;
  find("#progress").title = `${done} of ${session.total} answered`;
  for (const button of document.querySelectorAll("[data-choice]")) button.setAttribute("aria-pressed", button.dataset.choice === choice);
  for (const button of document.querySelectorAll("[data-confidence]")) button.setAttribute("aria-pressed", Number(button.dataset.confidence) === confidence);
  knees.forEach((knee, place) => {
    knee.section.classList.toggle("chosen", choice === ["first", "second"][place]);
    knee.section.classList.toggle("active", !state.linked && state.active === place);
  });
  find("#save").disabled = choice === null;
  find("#back").disabled = number <= 1;
  find("#brightness").value = look.brightness;
  find("#contrast").value = look.contrast;
  find("#invert").setAttribute("aria-pressed", look.invert);
  find("#link").setAttribute("aria-pressed", state.linked);
}

function choose(choice) {
  if (choice === "tie" && !state.session.ties) return;
  state.choice = choice;
  tell();
}

function sure(level) {
  state.confidence = state.confidence === level ? null : level;
  tell();
}

async function save() {
  if (state.choice === null || state.busy || state.number > state.session.total) return;
  state.busy = true;
  pause();
  try {
    const { number, choice, confidence, seconds } = state;
    const seen = knees.map((knee) => knee.seen.size);
    const answer = await ask("/api/answer", { number, choice, confidence, seconds: Math.min(seconds, 86400), seen });
    state.session.answers = (await answer.json()).answers;
    await open(number + 1);
  } catch (error) {
    say(`The answer was NOT kept: ${error.message}`, true);
    go();
  } finally {
    state.busy = false;
  }
}

async function back() {
  if (state.number <= 1 || state.busy) return;
  state.busy = true;
  try { await open(state.number - 1); } catch (error) { say(error.message, true); } finally { state.busy = false; }
}

function scroll(steps, only) {
  const both = state.linked !== Boolean(only);
  knees.forEach((knee, place) => { if (both || place === state.active) knee.move(steps); });
  draw();
}

function look(changes) {
  const clamp = (value, most) => Math.max(-most, Math.min(most, value));
  Object.assign(state.look, changes);
  state.look.brightness = clamp(state.look.brightness, 1);
  state.look.contrast = clamp(state.look.contrast, 3);
  state.look.zoom = Math.max(1, Math.min(8, state.look.zoom));
  if (state.look.zoom === 1) state.look.x = state.look.y = 0;
  tell();
  draw();
}

function link() { state.linked = !state.linked; tell(); }

const zoom = (factor) => look({ zoom: state.look.zoom * factor });
const ends = (place) => { const both = state.linked; knees.forEach((knee, n) => { if (both || n === state.active) knee.go(place ? knee.about.slices - 1 : 0); }); draw(); };
const keys = {
  ArrowLeft: () => choose("first"), 1: () => choose("first"), ArrowRight: () => choose("second"), 2: () => choose("second"),
  0: () => choose("tie"), Enter: save, Backspace: back, ArrowUp: (event) => scroll(-1, event.shiftKey), ArrowDown: (event) => scroll(1, event.shiftKey),
  PageUp: (event) => scroll(-5, event.shiftKey), PageDown: (event) => scroll(5, event.shiftKey), Home: () => ends(0), End: () => ends(1),
  l: link, i: () => look({ invert: !state.look.invert }), r: () => look(plain()), h: help, "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8),
  w: () => look({ brightness: state.look.brightness + 0.05 }), s: () => look({ brightness: state.look.brightness - 0.05 }),
  d: () => look({ contrast: state.look.contrast + 0.15 }), a: () => look({ contrast: state.look.contrast - 0.15 }),
  c: () => { state.confidence = state.confidence === 3 ? null : (state.confidence ?? 0) + 1; tell(); },
};

function help() { pause(); find("#help").showModal(); }

function listen() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || find("#help").open || !find("#trouble").hidden) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const over = state.number > state.session.total;
    if (!(key in keys) || (over && key !== "Backspace") || (event.repeat && ["Enter", "Backspace"].includes(key))) return;
    event.preventDefault();
    keys[key](event);
  });
  for (const [place, knee] of knees.entries()) {
    const frame = knee.section.querySelector(".frame");
    knee.section.addEventListener("pointerenter", () => { state.active = place; if (state.session) tell(); });
    frame.addEventListener("wheel", (event) => {
      event.preventDefault();
      const turn = Math.sign(event.deltaY || event.deltaX);
      if (event.ctrlKey) zoom(turn < 0 ? 1.25 : 0.8); else if (turn) scroll(turn, event.shiftKey);
    }, { passive: false });
    frame.addEventListener("pointerdown", (event) => { frame.setPointerCapture(event.pointerId); event.preventDefault(); });
    frame.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      const { look: now, scale } = state, mm = scale * now.zoom;
      if (event.shiftKey) look({ x: now.x + event.movementX / mm, y: now.y + event.movementY / mm });
      else look({ brightness: now.brightness - event.movementY / 400, contrast: now.contrast + event.movementX / 150 });
    });
    frame.addEventListener("contextmenu", (event) => event.preventDefault());
    knee.slider.addEventListener("input", () => {
      const steps = Number(knee.slider.value) - 1 - knee.place;
      state.active = place;
      scroll(steps);
    });
    new ResizeObserver(fit).observe(frame);
  }
  for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => choose(button.dataset.choice));
  for (const button of document.querySelectorAll("[data-confidence]")) button.addEventListener("click", () => sure(Number(button.dataset.confidence)));
  for (const name of ["brightness", "contrast"]) find(`#${name}`).addEventListener("input", (event) => look({ [name]: Number(event.target.value) }));
  const clicks = { save, back, link, reset: keys.r, invert: keys.i, "help-open": help, "end-back": back };
  for (const [name, does] of Object.entries(clicks)) find(`#${name}`).addEventListener("click", () => does());
  find("#help").addEventListener("close", go);
  document.addEventListener("visibilitychange", () => (document.hidden ? pause() : go()));
  for (const button of document.querySelectorAll("button")) button.addEventListener("click", () => button.blur()); // keys stay the page's
  for (const slider of document.querySelectorAll("input")) slider.addEventListener("change", () => slider.blur());
}

function words(session) {
  const within = session.months ? `within ${session.months} months` : "until the next measurement";
  find("#question").textContent = `Which of these two knees will lose ${session.loss_mm} mm or more of medial joint space ${within}?`;
  find("#task").textContent = `Each pair has one knee that lost ${session.loss_mm} mm or more of its medial joint space (on the radiograph) `
    + `${within} of this MRI, and one, of another person, that did not. Say which one did.`;
  find("#shown").textContent = [
    session.source === "series" ? "You see every slice of the series, as measured, both knees at the same scale."
      : "You see only the slices that a network is given, with their grey values clipped as for the network.",
    session.mirrored ? "All knees are shown as left knees: right ones are mirrored." : "Knees are shown as they are, seen from the front.",
    session.synthetic ? "These knees are drawn by a program and are nobody's." : "",
  ].join(" ");
  find("#made").hidden = !session.synthetic;
  find("#reader").textContent = session.reader;
  find('[data-choice="tie"]').hidden = !session.ties;
}

async function start() {
  state.session = await (await ask("/api/session")).json();
  words(state.session);
  listen();
  const next = state.session.answers.indexOf(null);
  if (next === 0) help(); // who goes on knows the keys
  await open(next < 0 ? state.session.total + 1 : next + 1);
}

start().catch((error) => say(error.message, true));
