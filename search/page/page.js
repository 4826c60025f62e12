// The search page. Texts of films and subtitles become text nodes, never markup.

const FIRST = 10; // results
const MOST = 100;
const SLOW = 1000; // milliseconds
const STEP = 5; // seconds of an arrow key
const MARGIN = 0.05; // seconds before a moment's end at which playback pauses

const $ = (id) => document.getElementById(id);
const video = $("video");

let query = "";
let top_ = FIRST;
let moments = [];
let open = -1; // index of the moment in the player
let film = null; // details of its film
let startAt = null; // seconds, until the film is loaded
let stopAt = null; // seconds
let searching = null; // AbortController of the current search
let opening = null; // AbortController of what the player loads

// ---------------------------------------------------------------- the service

async function get(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer. Is it still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const reason = typeof body.detail === "string" ? body.detail : "";
  throw new Error(reason || `The service answered with an error (${response.status}).`);
}

const of = (id, rest = "") => `api/videos/${encodeURIComponent(id)}${rest}`;

// ---------------------------------------------------------------- text

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const parts = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60];
  const rest = String(Math.floor(tenths / 10) % 60).padStart(2, "0");
  return `${parts[0]}:${String(parts[1]).padStart(2, "0")}:${rest}.${tenths % 10}`;
}

const span = (moment) => `${clock(moment.start)} – ${clock(moment.end)}`;
const WORD = /[\p{L}\p{N}]+/gu;
// Marked only if a sentence has no other words.
const COMMON = new Set(
  "a an and are as at be by for from has he her his in into is it its of on or she that the their they to up was with".split(" "),
);

function wanted(sentence) {
  const words = sentence.toLowerCase().match(WORD) ?? [];
  const rare = words.filter((word) => !COMMON.has(word));
  return new Set(rare.length ? rare : words);
}

// Return a text as nodes, with the words of a set marked.
function marked(text, words) {
  const nodes = document.createDocumentFragment();
  let at = 0;
  for (const match of text.matchAll(WORD)) {
    if (!words.has(match[0].toLowerCase())) continue;
    nodes.append(text.slice(at, match.index));
    const mark = document.createElement("mark");
    mark.textContent = match[0];
    nodes.append(mark);
    at = match.index + match[0].length;
  }
  nodes.append(text.slice(at));
  return nodes;
}

// ---------------------------------------------------------------- the search

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function sayFailed(message) {
  say(message, "failed");
  const again = document.createElement("button");
  again.type = "button";
  again.textContent = "Try again";
  again.addEventListener("click", () => search(query, top_));
  $("status").append(again);
}

// Return whether there is an answer, and no newer search has started.
async function search(sentence, top = FIRST) {
  searching?.abort();
  searching = null;
  const more = sentence === query && top > top_;
  query = sentence;
  top_ = top;
  $("query").value = sentence;
  document.title = sentence ? `${sentence} – moment search` : "Moment search";
  if (!more) show([]);
  if (!sentence.trim()) return greet();
  const mine = (searching = new AbortController());
  say("Searching…");
  const slow = setTimeout(() => say("Still searching: the service is busy…"), SLOW);
  $("results").setAttribute("aria-busy", "true");
  $("more").disabled = true;
  try {
    const path = `api/search?${new URLSearchParams({ q: sentence, top })}`;
    const found = await get(path, mine.signal);
    show(found.moments);
    await tell(found.moments);
    return true;
  } catch (error) {
    if (error.name !== "AbortError") sayFailed(error.message);
    return false;
  } finally {
    clearTimeout(slow);
    if (searching === mine) {
      searching = null;
      $("results").removeAttribute("aria-busy");
      $("more").disabled = false;
    }
  }
}

async function greet() {
  const mine = (searching = new AbortController());
  say("");
  try {
    const health = await get("api/health", mine.signal);
    const films = health.videos === 1 ? "one film" : `${health.videos} films`;
    say(health.videos ? `Describe what happens, or what is said, in ${films}.` : EMPTY);
    note(health.note);
  } catch (error) {
    if (error.name !== "AbortError") sayFailed(error.message);
  }
  return false;
}

const EMPTY = "The index holds no films yet: fill it with index_videos.py.";

async function tell(found) {
  note(found.find((moment) => moment.note)?.note ?? "");
  if (!found.length) {
    const health = await get("api/health").catch(() => ({ videos: 1 }));
    say(health.videos ? "No film is long enough for a moment." : EMPTY);
  } else if (found.every((moment) => moment.doubtful)) {
    const doubt = "these moments score no better than unrelated sentences do.";
    say(`Nothing found: ${doubt}`, "doubtful");
  } else {
    say(found.length === 1 ? "One moment." : `${found.length} moments.`);
  }
}

function note(text) {
  $("note").textContent = text && `Note: ${text}.`;
  $("note").hidden = !text;
}

function show(found) {
  const words = wanted(query);
  moments = found;
  $("results").replaceChildren(...found.map((moment, place) => card(moment, place, words)));
  $("more").hidden = found.length < top_ || top_ >= MOST;
  if (open >= 0) found.length > open ? drawBars() : leave();
  highlight();
}

function card(moment, place, words) {
  const item = $("card").content.firstElementChild.cloneNode(true);
  const [picture, name, times, spoken] = item.firstElementChild.children;
  const middle = ((moment.start + moment.end) / 2).toFixed(2);
  picture.firstElementChild.addEventListener("error", () => picture.classList.add("missing"));
  picture.firstElementChild.src = of(moment.video, `/thumbnail?t=${middle}`);
  name.textContent = moment.name;
  times.textContent = span(moment) + (moment.doubtful ? " · doubtful" : "");
  spoken.append(marked(moment.text, words));
  item.classList.toggle("doubtful", moment.doubtful === true);
  item.firstElementChild.title = `score ${moment.score.toPrecision(4)}`;
  item.firstElementChild.addEventListener("click", () => go({ open: place }));
  return item;
}

function highlight() {
  [...$("results").children].forEach((item, place) => {
    item.classList.toggle("open", place === open);
  });
  $("previous").disabled = open <= 0;
  $("next").disabled = open < 0 || open >= moments.length - 1;
}

// ---------------------------------------------------------------- the player

async function enter(place) {
  const moment = moments[place];
  opening?.abort();
  const mine = (opening = new AbortController());
  open = place;
  stopAt = moment.end;
  $("player").hidden = false;
  $("film").textContent = moment.name;
  $("problem").hidden = true;
  highlight();
  if (film?.video !== moment.video) {
    film = { video: moment.video, lines: [], seconds: 0, problem: "" };
    video.src = of(moment.video, "/stream");
    $("curve").firstElementChild.setAttribute("d", "");
  }
  seek(moment.start);
  video.play().catch(() => {}); // a browser may want a click first
  drawBars();
  try {
    if (film.file === undefined) film = await get(of(moment.video), mine.signal);
    if (film.problem && !film.plays) cannotPlay();
    drawBars();
    follow();
    const path = of(moment.video, `/curve?${new URLSearchParams({ q: query })}`);
    drawCurve(await get(path, mine.signal));
  } catch (error) {
    if (error.name !== "AbortError") cannotPlay(error.message);
  }
}

function seek(seconds) {
  startAt = video.readyState ? null : seconds;
  video.currentTime = seconds;
}

function leave() {
  opening?.abort();
  open = -1;
  film = null;
  video.pause();
  video.removeAttribute("src");
  video.load();
  $("player").hidden = true;
  highlight();
}

function cannotPlay(said = "") {
  const reason = said || film?.problem || "this browser cannot read it";
  $("problem").textContent = `The film cannot be played: ${reason}`;
  $("problem").hidden = false;
}

const length = () => film?.seconds || video.duration || 0;
const share = (seconds) => `${(100 * Math.min(seconds / length(), 1)).toFixed(3)}%`;

function drawBars() {
  const bars = [];
  moments.forEach((moment, place) => {
    if (moment.video !== moments[open]?.video || !length()) return;
    const bar = document.createElement("button");
    bar.type = "button";
    bar.title = span(moment);
    bar.setAttribute("aria-label", `moment ${place + 1}, ${span(moment)}`);
    bar.style.left = share(moment.start);
    bar.style.width = share(moment.end - moment.start);
    if (place === open) bar.setAttribute("aria-current", "true");
    bar.addEventListener("click", (event) => {
      event.stopPropagation();
      go({ open: place });
    });
    bars.push(bar);
  });
  $("bars").replaceChildren(...bars);
}

function drawCurve({ interval, scores }) {
  const known = scores.filter((score) => score !== null);
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const height = (score) => (95 - (90 * ((score ?? low) - low)) / (high - low || 1)).toFixed(1);
  const steps = scores.map((score, frame) => {
    const [left, right] = [frame, frame + 1].map((f) =>
      (1000 * Math.min((f * interval) / length(), 1)).toFixed(2),
    );
    return `L${left} ${height(score)}L${right} ${height(score)}`;
  });
  $("curve").firstElementChild.setAttribute("d", `M0 100${steps.join("")}L1000 100Z`);
}

// Update what depends on the film's time: playhead, clock, spoken words, the moment's end.
function follow() {
  if (open < 0) return;
  const now = video.currentTime;
  if (stopAt !== null && now >= stopAt - MARGIN && !video.paused && !video.seeking) {
    stopAt = null;
    video.pause();
  }
  if (length()) $("playhead").style.left = share(now);
  const time = `${clock(now)} of ${clock(length())}`;
  if ($("clock").textContent !== time) $("clock").textContent = time;
  const spoken = film?.lines.filter((line) => line.start <= now && now < line.end) ?? [];
  const words = spoken.map((line) => line.text).join("\n");
  if ($("caption").textContent !== words) $("caption").textContent = words;
}

function followOn() {
  follow();
  if (!video.paused && open >= 0) requestAnimationFrame(followOn);
}

function jump(seconds) {
  stopAt = null;
  seek(Math.max(0, Math.min(seconds, length())));
}

// ---------------------------------------------------------------- the address

function address() {
  const words = new URLSearchParams();
  if (query) words.set("q", query);
  if (top_ !== FIRST) words.set("top", top_);
  if (open >= 0) words.set("moment", open + 1);
  return words.size ? `?${words}` : location.pathname;
}

// Change what is shown: a sentence, a number of results, an opened moment (-1: none).
async function go(change, keep = true) {
  const { sentence = query, top = top_ } = change;
  if (change.sentence !== undefined || top !== top_) {
    if (change.sentence !== undefined && open >= 0) leave();
    const answered = search(sentence, top);
    if (keep) history.pushState(null, "", address());
    if (!(await answered)) return;
  }
  if (change.open === undefined) return;
  if (change.open >= 0 && change.open < moments.length) enter(change.open);
  else if (open >= 0) leave();
  if (keep && address() !== location.search) history.pushState(null, "", address());
}

function restore() {
  const words = new URLSearchParams(location.search);
  const sentence = words.get("q") ?? "";
  const top = Math.min(MOST, Math.max(1, Number.parseInt(words.get("top"), 10) || FIRST));
  const place = (Number.parseInt(words.get("moment"), 10) || 0) - 1;
  const same = sentence === query && top === top_ && moments.length;
  go(same ? { open: place } : { sentence, top, open: place }, false);
}

// ---------------------------------------------------------------- events

const KEYS = {
  n: () => open < moments.length - 1 && go({ open: open + 1 }),
  p: () => open > 0 && go({ open: open - 1 }),
  " ": () => open >= 0 && (video.paused ? video.play().catch(() => {}) : video.pause()),
  ArrowLeft: () => open >= 0 && jump(video.currentTime - STEP),
  ArrowRight: () => open >= 0 && jump(video.currentTime + STEP),
  Escape: () => open >= 0 && go({ open: -1 }),
  "/": () => $("query").select(),
};
KEYS.j = KEYS.n;
KEYS.k = KEYS.p;

document.addEventListener("keydown", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!(key in KEYS) || event.ctrlKey || event.altKey || event.metaKey) return;
  const typing = event.target instanceof HTMLInputElement;
  const own = event.target === video || (event.target instanceof HTMLButtonElement && key === " ");
  if ((typing || (own && (key === " " || key.startsWith("Arrow")))) && key !== "Escape") return;
  event.preventDefault();
  KEYS[key]();
});

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const sentence = $("query").value.trim();
  $("query").blur();
  go({ sentence, top: FIRST });
});
$("more").addEventListener("click", () => go({ top: Math.min(MOST, top_ * 2) }));
$("previous").addEventListener("click", KEYS.p);
$("next").addEventListener("click", KEYS.n);
$("close").addEventListener("click", KEYS.Escape);
$("timeline").addEventListener("click", (event) => {
  const box = $("timeline").getBoundingClientRect();
  jump((length() * (event.clientX - box.left)) / box.width);
});
video.addEventListener("play", followOn);
video.addEventListener("timeupdate", follow);
video.addEventListener("seeked", follow);
video.addEventListener("loadedmetadata", () => {
  if (startAt !== null) seek(startAt);
  drawBars();
  follow();
});
video.addEventListener("error", () => video.hasAttribute("src") && cannotPlay());
window.addEventListener("popstate", restore);
restore();
