"use strict";
// Verifies proofs and signed heads of sqlstate (docs/reference/proofs.md), alone, in a browser or under node.
//
//   node:     const sqlstate = require("./verify.js")        or    import sqlstate from "./verify.js"
//   browser:  <script src="verify.js"></script>, and then the global `sqlstate`
//
// A proof is a Uint8Array, or its JSON form as a string. A root is 64 hexadecimal digits, or 32 bytes.
// A key, and a bound of keys, is {int: "5"}, {text: "k"} or {bytes: "00ff"}, bytes as hexadecimal digits.
// A signed head is what verifyHead() gave. A limit, a count and the number of a commit may be a BigInt or its digits.
// A value is {json: "the document as it is stored"} or {bytes: "00ff"}. Answers have these forms; counts are BigInt.
//
// What does not hold throws ProofInvalid, and that is no proof of the contrary. A question that is none throws
// QuestionInvalid. Nothing of question, root or key is taken from the proof.

const sqlstate = (() => {
  class ProofInvalid extends Error {}
  class QuestionInvalid extends Error {}
  ProofInvalid.prototype.name = "ProofInvalid";
  QuestionInvalid.prototype.name = "QuestionInvalid";

  const MAGIC = [0x53, 0x71, 0x53, 0x70]; // "SqSp"
  const VERSION = 1;
  const HEADER = MAGIC.length + 2;
  const CODES = { present: 0x50, absent: 0x41, range: 0x52, count: 0x43, many: 0x4d, commit: 0x4c, consistency: 0x4b };
  const DIGEST = 32;
  const LEVEL_MAX = 16;
  const NAME_MAX = 255;
  const KEY_MAX = 1048576;
  const VALUE_MAX = 268435456;
  const DEPTH_MAX = 200;
  const COUNT_MAX = 2n ** 64n - 1n;
  const INT_MIN = -(2n ** 63n);
  const INT_MAX = 2n ** 63n - 1n;
  const KEY_KINDS = [0x69, 0x74, 0x62]; // i, t, b
  const BEYOND = KEY_KINDS.length;
  const JSON_VALUE = 0x6a;
  const BYTES_VALUE = 0x62;

  // ---- SHA-256 (FIPS 180-4) ----

  const INITIAL = Int32Array.of(
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
  );
  const ROUNDS = Int32Array.of(
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
  );
  const words = new Int32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));

  function compress(state, data, at) {
    const w = words;
    for (let i = 0, j = at; i < 16; i++, j += 4) {
      w[i] = (data[j] << 24) | (data[j + 1] << 16) | (data[j + 2] << 8) | data[j + 3];
    }
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15];
      const y = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[i] + w[i]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + one) | 0;
      d = c;
      c = b;
      b = a;
      a = (one + two) | 0;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
  }

  class Hash {
    constructor() {
      Object.assign(this, { state: INITIAL.slice(), block: new Uint8Array(64), used: 0, size: 0 });
    }

    update(data) {
      this.size += data.length;
      let at = 0;
      while (at < data.length) {
        if (this.used === 0 && data.length - at >= 64) {
          compress(this.state, data, at);
          at += 64;
          continue;
        }
        this.block[this.used++] = data[at++];
        if (this.used === 64) {
          compress(this.state, this.block, 0);
          this.used = 0;
        }
      }
      return this;
    }

    digest() {
      const bits = u64(BigInt(this.size) * 8n);
      const padding = new Uint8Array(((119 - this.used) % 64) + 1);
      padding[0] = 0x80;
      this.update(padding).update(bits);
      const digest = new Uint8Array(DIGEST);
      for (let i = 0; i < DIGEST; i++) digest[i] = this.state[i >> 2] >>> (24 - 8 * (i & 3));
      return digest;
    }
  }

  function sha256(...parts) {
    const hash = new Hash();
    for (const part of parts) hash.update(part);
    return hash.digest();
  }

  // ---- Bytes, digits and text ----

  const bytes = (...numbers) => Uint8Array.from(numbers);

  function u32(number) {
    return bytes(number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255);
  }

  function u64(number) {
    const out = new Uint8Array(8);
    new DataView(out.buffer).setBigUint64(0, number);
    return out;
  }

  function readU32(data, at) {
    return ((data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3]) >>> 0;
  }

  function readU64(data, at) {
    return (BigInt(readU32(data, at)) << 32n) | BigInt(readU32(data, at + 4));
  }

  function compareBytes(a, b) {
    const shared = Math.min(a.length, b.length);
    for (let i = 0; i < shared; i++) if (a[i] !== b[i]) return a[i] - b[i];
    return a.length - b.length;
  }

  const equal = (a, b) => compareBytes(a, b) === 0;

  const PAIRS = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

  function toHex(data) {
    let digits = "";
    for (let at = 0; at < data.length; at += 0x3000) {
      digits += Array.from(data.subarray(at, at + 0x3000), (byte) => PAIRS[byte]).join("");
    }
    return digits;
  }

  function fromHex(digits) {
    if (typeof digits !== "string" || digits.length % 2 !== 0 || /[^0-9a-fA-F]/.test(digits)) return null;
    const data = new Uint8Array(digits.length / 2);
    for (let i = 0; i < data.length; i++) data[i] = parseInt(digits.slice(2 * i, 2 * i + 2), 16);
    return data;
  }

  // A decoder without ignoreBOM would drop what text begins with.
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  // The text that bytes are in UTF-8, null if they are none.
  function decoded(data) {
    try {
      return decoder.decode(data);
    } catch {
      return null;
    }
  }

  // The bytes of a text, null if it is none: an encoder would replace a lone surrogate.
  function encoded(text) {
    return typeof text !== "string" || /\p{Surrogate}/u.test(text) ? null : new TextEncoder().encode(text);
  }

  function base64(data) {
    let out = "";
    for (let at = 0; at < data.length; at += 0x3000) {
      out += btoa(String.fromCharCode(...data.subarray(at, at + 0x3000)));
    }
    return out;
  }

  // The bytes that base64 stands for, null if it is not in its one form.
  function unbase64(text) {
    let raw;
    try {
      raw = atob(text);
    } catch {
      return null;
    }
    const data = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) data[i] = raw.charCodeAt(i);
    return base64(data) === text ? data : null;
  }

  // ---- The container ----

  function fromBytes(data) {
    if (!(data instanceof Uint8Array) || data.length < HEADER || MAGIC.some((byte, i) => data[i] !== byte)) {
      throw new ProofInvalid("this is no proof of sqlstate");
    }
    if (data[MAGIC.length] !== VERSION) {
      throw new ProofInvalid(`the proof is of version ${data[MAGIC.length]}, and this program knows version ${VERSION}`);
    }
    const kind = Object.keys(CODES).find((each) => CODES[each] === data[HEADER - 1]);
    if (kind === undefined) throw new ProofInvalid("the proof is of a kind that there is not");
    return { kind, body: new Uint8Array(data.subarray(HEADER)) };
  }

  function toBytes({ kind, body }) {
    const data = new Uint8Array(HEADER + body.length);
    data.set([...MAGIC, VERSION, CODES[kind]]);
    data.set(body, HEADER);
    return data;
  }

  const jsonHead = (kind) => `{"sqlstate":"proof","version":${VERSION},"kind":"${kind}","body":"`;
  const JSON_END = '"}';

  function toJson({ kind, body }) {
    return jsonHead(kind) + base64(body) + JSON_END;
  }

  function fromJson(text) {
    if (typeof text === "string") {
      const line = text.endsWith("\n") ? text.slice(0, -1) : text;
      const kind = Object.keys(CODES).find((each) => line.startsWith(jsonHead(each)));
      if (kind !== undefined && line.endsWith(JSON_END)) {
        const body = unbase64(line.slice(jsonHead(kind).length, -JSON_END.length));
        if (body !== null) return { kind, body };
      }
    }
    throw new ProofInvalid("this is no proof of sqlstate as JSON");
  }

  function bodyOf(proof, kind) {
    const opened = typeof proof === "string" ? fromJson(proof) : fromBytes(proof);
    if (opened.kind !== kind) {
      throw new ProofInvalid(`the proof is of kind '${opened.kind}', and the question needs one of kind '${kind}'`);
    }
    return opened.body;
  }

  // ---- Names and values of the question ----

  // The one member that an object has out of some: [name, value].
  function only(object, ...names) {
    const given = object !== null && typeof object === "object" ? Object.keys(object) : [];
    return given.length === 1 && names.includes(given[0]) ? [given[0], object[given[0]]] : ["", null];
  }

  function wholeNumber(value) {
    if (typeof value === "bigint" || Number.isSafeInteger(value)) return BigInt(value);
    return typeof value === "string" && /^(0|-?[1-9][0-9]{0,19})$/.test(value) ? BigInt(value) : null;
  }

  function collectionOf(name) {
    const raw = encoded(name);
    if (raw === null || raw.length < 1 || raw.length > NAME_MAX) {
      throw new QuestionInvalid("a collection's name is text of 1 to 255 bytes in UTF-8");
    }
    return raw;
  }

  // Class and bytes of a key, or of a bound of keys, which may be empty.
  function boundOf(key) {
    const [type, value] = only(key, "int", "text", "bytes");
    if (type === "int") {
      const number = wholeNumber(value);
      if (number === null || number < INT_MIN || number > INT_MAX) {
        throw new QuestionInvalid("an integer key is a whole number from -2^63 to 2^63-1, in decimal digits");
      }
      return { cls: 0, raw: u64(number - INT_MIN) };
    }
    const raw = type === "text" ? encoded(value) : fromHex(value);
    if (raw === null) throw new QuestionInvalid("a key is an integer, text, or bytes as hexadecimal digits");
    if (raw.length > KEY_MAX) throw new QuestionInvalid("a key has at most 1,048,576 bytes");
    return { cls: type === "text" ? 1 : 2, raw };
  }

  // A place is collection, class and bytes of a key.
  function placeOf(collection, key) {
    const place = { collection: collectionOf(collection), ...boundOf(key) };
    if (place.raw.length === 0) throw new QuestionInvalid("a key has 1 byte or more");
    return place;
  }

  function spanOf({ collection, start, stop }) {
    const name = collectionOf(collection);
    const low = { collection: name, ...boundOf(start ?? { int: INT_MIN }) };
    const high = { collection: name, ...(stop == null ? { cls: BEYOND, raw: bytes() } : boundOf(stop)) };
    if (comparePlaces(low, high) >= 0) {
      throw new QuestionInvalid("the span is empty, whatever the store holds: its start is not before its stop");
    }
    return [low, high];
  }

  function comparePlaces(a, b) {
    return compareBytes(a.collection, b.collection) || a.cls - b.cls || compareBytes(a.raw, b.raw);
  }

  function contentOf(value) {
    const [type, given] = only(value, "json", "bytes");
    const stored = type === "json" ? encoded(given) : fromHex(given);
    if (stored === null) throw new QuestionInvalid("a value is a JSON document, or bytes as hexadecimal digits");
    return { kind: type === "json" ? JSON_VALUE : BYTES_VALUE, stored };
  }

  function leafOf({ collection, cls, raw }, kind, valueDigest) {
    const name = [u32(collection.length), collection, bytes(KEY_KINDS[cls]), u32(raw.length), raw];
    return sha256(bytes(0), ...name, bytes(kind), valueDigest);
  }

  function askedEntry(collection, key, value) {
    const place = placeOf(collection, key);
    const { kind, stored } = contentOf(value);
    return { place, digest: leafOf(place, kind, sha256(stored)) };
  }

  function keyOf({ cls, raw }) {
    if (cls === 0) return { int: String(readU64(raw, 0) + INT_MIN) };
    return cls === 1 ? { text: decoded(raw) } : { bytes: toHex(raw) };
  }

  function valueOf({ kind, stored }) {
    if (kind === BYTES_VALUE) return { bytes: toHex(stored) };
    const json = decoded(stored);
    if (json === null || !isDocument(json)) {
      throw new ProofInvalid("a value under this root is no JSON document that a store holds");
    }
    return { json };
  }

  function isDocument(json) {
    try {
      JSON.parse(json);
    } catch (error) {
      if (error instanceof SyntaxError) return false;
      throw error;
    }
    const number = /[-+.0-9eE]+/y;
    let depth = 0;
    for (let at = 0; at < json.length; at++) {
      const start = at;
      if (json[at] === '"') {
        while (json[++at] !== '"') if (json[at] === "\\") at++;
        const string = json.slice(start, at + 1);
        if (/\\u[dD]/.test(string) && encoded(JSON.parse(string)) === null) return false;
      } else if (json[at] === "[" || json[at] === "{") {
        if (++depth > DEPTH_MAX) return false;
      } else if (json[at] === "]" || json[at] === "}") {
        depth--;
      } else if (json[at] === "-" || (json[at] >= "0" && json[at] <= "9")) {
        number.lastIndex = at;
        const [digits] = number.exec(json);
        if (!Number.isFinite(Number(digits))) return false;
        at += digits.length - 1;
      }
    }
    return true;
  }

  // ---- The part of the tree that a proof opens ----

  const OPAQUE = 0;
  const NODE = 1;
  const ASKED = 2;
  const NEIGHBOUR = 3;
  const ENTRY = 4;
  const EMPTY_ROOT = sha256(bytes(1, 1));
  const LEAVES = {
    present: [ASKED],
    absent: [NEIGHBOUR],
    range: [NEIGHBOUR, ENTRY],
    count: [NEIGHBOUR],
    many: [ASKED, NEIGHBOUR],
  };

  class Reader {
    constructor(data, allowed, asked) {
      Object.assign(this, { data, at: 0, allowed, asked, next: 0, leaves: [], nodes: [], position: 0n });
    }

    // What the proof opens, if all of it leads to the root.
    read(root) {
      const level = this.take(1)[0];
      if (level > LEVEL_MAX) {
        throw new ProofInvalid(`the proof has a tree of ${level} levels, and there are at most ${LEVEL_MAX}`);
      }
      const digest = level === 0 ? EMPTY_ROOT : this.node(level, true);
      if (this.at !== this.data.length) throw new ProofInvalid("there are bytes behind the proof");
      if (!equal(digest, root)) {
        throw new ProofInvalid("the proof leads to another root: what it was asked to show does not follow from this one");
      }
      if (this.next !== this.asked.length) {
        throw new ProofInvalid("the proof does not show every entry that is asked for");
      }
      const { leaves, nodes, position } = this;
      const places = leaves.map(({ place }) => place);
      if (places.some((place, i) => i > 0 && comparePlaces(places[i - 1], place) >= 0)) {
        throw new ProofInvalid("the entries under this root are not in order");
      }
      return { leaves, places, nodes, total: position };
    }

    node(level, top) {
      const number = readU32(this.take(4), 0);
      if (number < (top && level > 1 ? 2 : 1)) {
        throw new ProofInvalid("the proof has a node with fewer children than it must have");
      }
      const opened = this.leaves.length;
      const node = { level, children: number, opened: [], first: this.position, count: 0n };
      this.nodes.push(node);
      const hash = new Hash().update(bytes(1, level));
      for (let i = 0; i < number; i++) {
        const before = this.position;
        const form = this.take(1)[0];
        if (form !== OPAQUE) node.opened.push(i + 1);
        const digest = this.child(level, form);
        if (this.position > COUNT_MAX) throw new ProofInvalid("the proof counts more entries than a store can have");
        hash.update(u64(this.position - before)).update(digest);
      }
      if (this.leaves.length === opened) throw new ProofInvalid("the proof opens a node of the tree for nothing");
      node.count = this.position - node.first;
      return hash.digest();
    }

    child(level, form) {
      if (form === OPAQUE) {
        const count = readU64(this.take(8), 0);
        if (count === 0n || (level === 1 && count > 1n)) {
          throw new ProofInvalid("the proof counts a part of the tree wrongly");
        }
        this.position += count;
        return this.take(DIGEST);
      }
      if (form === NODE && level > 1) return this.node(level - 1, false);
      if (level > 1 || !this.allowed.includes(form)) {
        throw new ProofInvalid("the proof has a part that does not belong there");
      }
      return form === ASKED ? this.askedLeaf() : this.shownLeaf(form);
    }

    askedLeaf() {
      if (this.next === this.asked.length) throw new ProofInvalid("the proof shows more entries than are asked for");
      const { place, digest } = this.asked[this.next++];
      this.leaves.push({ position: this.position++, place, form: ASKED, content: null });
      return digest;
    }

    shownLeaf(form) {
      const place = this.name();
      const kind = this.take(1)[0];
      if (kind !== JSON_VALUE && kind !== BYTES_VALUE) {
        throw new ProofInvalid("the proof has a value of a kind that there is not");
      }
      const content = form === ENTRY ? { kind, stored: this.field(VALUE_MAX) } : null;
      const valueDigest = content === null ? this.take(DIGEST) : sha256(content.stored);
      this.leaves.push({ position: this.position++, place, form, content });
      return leafOf(place, kind, valueDigest);
    }

    name() {
      const collection = this.field(NAME_MAX);
      const cls = KEY_KINDS.indexOf(this.take(1)[0]);
      const raw = this.field(KEY_MAX);
      const text = collection.length > 0 && decoded(collection) !== null;
      const key = [raw.length === 8, raw.length > 0 && decoded(raw) !== null, raw.length > 0][cls];
      if (!text || !key) throw new ProofInvalid("the proof has a name that no entry can have");
      return { collection, cls, raw };
    }

    field(limit) {
      const size = readU32(this.take(4), 0);
      if (size > limit) throw new ProofInvalid(`the proof has a part of ${size} bytes, and the limit is ${limit}`);
      return this.take(size);
    }

    take(size) {
      if (this.data.length - this.at < size) throw new ProofInvalid("the proof is cut short");
      this.at += size;
      return this.data.subarray(this.at - size, this.at);
    }
  }

  function rootOf(root) {
    const raw = typeof root === "string" ? fromHex(root) : root;
    if (!(raw instanceof Uint8Array) || raw.length !== DIGEST) {
      throw new QuestionInvalid("a root is 32 bytes: 64 hexadecimal digits");
    }
    return raw;
  }

  // Number of the first place that is not before another.
  function find(places, place) {
    let [low, high] = [0, places.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (comparePlaces(places[middle], place) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function has(places, place) {
    const at = find(places, place);
    return at < places.length && comparePlaces(places[at], place) === 0;
  }

  // Where a place falls among the leaves, shown by those on both sides of it.
  function gap({ leaves, places, total }, place) {
    const next = find(places, place);
    const position = next < leaves.length ? leaves[next].position : total;
    if (position !== (next > 0 ? leaves[next - 1].position + 1n : 0n)) {
      throw new ProofInvalid("the proof does not show what lies on both sides of a key or bound of the question");
    }
    return { next, position, beside: [next - 1, next].filter((i) => i >= 0 && i < leaves.length) };
  }

  function checkSpare({ leaves }, needed) {
    if (new Set(needed).size !== leaves.length) {
      throw new ProofInvalid("the proof opens what the question does not need");
    }
  }

  function absence(part, place) {
    const { beside } = gap(part, place);
    if (has(part.places, place)) throw new ProofInvalid("there is an entry with the key that is asked for");
    return beside;
  }

  // ---- The questions about entries ----

  // Each takes a question and gives the entries that a proof must show from it, and what judges the opened part and
  // gives the answer.
  const QUESTIONS = {
    present({ collection, key, value }) {
      return { asked: [askedEntry(collection, key, value)], judge: () => undefined };
    },

    absent({ collection, key }) {
      const place = placeOf(collection, key);
      return { asked: [], judge: (part) => checkSpare(part, absence(part, place)) };
    },

    range(question) {
      const [low, high] = spanOf(question);
      const limit = question.limit == null ? null : wholeNumber(question.limit);
      if (question.limit != null && (limit === null || limit < 1n || limit > INT_MAX)) {
        throw new QuestionInvalid("a limit is a number of entries from 1 to 2^63-1");
      }
      return { asked: [], judge: (part) => judgeRange(part, low, high, limit) };
    },

    count(question) {
      const [low, high] = spanOf(question);
      const judge = (part) => {
        const [first, last] = [gap(part, low), gap(part, high)];
        checkSpare(part, [...first.beside, ...last.beside]);
        return last.position - first.position;
      };
      return { asked: [], judge };
    },

    many({ present, absent }) {
      const asked = list(present, 3).map((entry) => askedEntry(...entry));
      const gone = list(absent, 2).map((name) => placeOf(...name));
      asked.sort((a, b) => comparePlaces(a.place, b.place));
      gone.sort(comparePlaces);
      const there = asked.map(({ place }) => place);
      if (there.length + gone.length === 0) throw new QuestionInvalid("ask for one entry or more");
      const twice = there.some((place, i) => i > 0 && comparePlaces(there[i - 1], place) === 0);
      if (twice || gone.some((place) => has(there, place))) {
        throw new QuestionInvalid("ask for each entry once, and for its presence or its absence");
      }
      const judge = (part) => {
        const shown = part.leaves.flatMap(({ form }, i) => (form === ASKED ? [i] : []));
        checkSpare(part, [...shown, ...gone.flatMap((place) => absence(part, place))]);
      };
      return { asked, judge };
    },
  };

  function list(given, size) {
    const items = given ?? [];
    if (!Array.isArray(items) || items.some((item) => !Array.isArray(item) || item.length !== size)) {
      throw new QuestionInvalid("entries are asked for as lists of [collection, key, value], and [collection, key]");
    }
    return items;
  }

  function judgeRange(part, low, high, limit) {
    const { leaves } = part;
    const first = gap(part, low);
    const end = Math.max(first.next, find(part.places, high));
    const size = BigInt(end - first.next);
    const inside = leaves.slice(first.next, end);
    if (inside.some(({ position }, i) => position !== first.position + BigInt(i))) {
      throw new ProofInvalid("the proof leaves entries out of the range");
    }
    if (limit !== null && size > limit) {
      throw new ProofInvalid(`the proof holds ${size} entries, and the question allows ${limit}`);
    }
    const last = size === limit ? [] : gap(part, high).beside;
    checkSpare(part, [...first.beside, ...inside.map((_, i) => first.next + i), ...last]);
    if (leaves.some(({ content }, i) => (content === null) === (i >= first.next && i < end))) {
      throw new ProofInvalid("the proof shows a value outside the range, or lacks one inside");
    }
    return inside.map(({ place, content }) => [keyOf(place), valueOf(content)]);
  }

  // Checks a proof against a root and a question {kind, collection, key, value, start, stop, limit, present, absent}:
  // each kind has those members that the function of its name below takes. Gives the answer (entries of a range, number
  // of a count), the number of all entries, the nodes on the way down, and the entries that the proof shows.
  function verify(proof, root, question) {
    const trusted = rootOf(root);
    const kind = question !== null && typeof question === "object" ? question.kind : null;
    if (typeof kind !== "string" || !Object.hasOwn(QUESTIONS, kind)) {
      throw new QuestionInvalid(`a question is of kind ${Object.keys(QUESTIONS).join(", ")}`);
    }
    const { asked, judge } = QUESTIONS[kind](question);
    const part = new Reader(bodyOf(proof, kind), LEAVES[kind], asked).read(trusted);
    const answer = judge(part);
    const shown = part.leaves.map(({ position, place, form }) => ({
      position,
      collection: decoded(place.collection),
      key: keyOf(place),
      role: form === NEIGHBOUR ? "neighbour" : "entry",
    }));
    return { answer, total: part.total, nodes: part.nodes, shown };
  }

  function verifyPresent(proof, root, collection, key, value) {
    verify(proof, root, { kind: "present", collection, key, value });
  }

  function verifyAbsent(proof, root, collection, key) {
    verify(proof, root, { kind: "absent", collection, key });
  }

  // Returns [[key, value], …]: with a limit and that many entries, nothing is claimed of what comes after the last.
  function verifyRange(proof, root, collection, start = null, stop = null, limit = null) {
    return verify(proof, root, { kind: "range", collection, start, stop, limit }).answer;
  }

  function verifyCount(proof, root, collection, start = null, stop = null) {
    return verify(proof, root, { kind: "count", collection, start, stop }).answer;
  }

  // present: [[collection, key, value], …]; absent: [[collection, key], …].
  function verifyMany(proof, root, present, absent = []) {
    verify(proof, root, { kind: "many", present, absent });
  }

  // ---- Commits ----

  const TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z";
  const COUNT_AT = 2 * DIGEST;
  const TIME_AT = COUNT_AT + 8 + 4;
  const TIME_BYTES = 27;
  const COMMIT_BYTES = TIME_AT + TIME_BYTES + DIGEST;
  const PATH_MAX = 2 * 63;

  // A head is {origin, seq, logRoot, root, count, at}: what verifyHead() gives.
  function headOf(head) {
    const { origin, seq, logRoot, root, count, at } = head ?? {};
    const [size, entries] = [wholeNumber(seq), wholeNumber(count)];
    const right = [size, entries].every((number) => number !== null && number >= 0n && number <= INT_MAX);
    if (!right || typeof origin !== "string" || typeof at !== "string") {
      throw new QuestionInvalid("a signed head is what verifyHead() gave");
    }
    return { origin, size, logRoot: rootOf(logRoot), facts: [toHex(rootOf(root)), entries, at].join(" ") };
  }

  function digestsOf(data) {
    if (data.length % DIGEST !== 0 || data.length > PATH_MAX * DIGEST) {
      throw new ProofInvalid("the path of the proof is not made of digests, or is longer than any log is deep");
    }
    return Array.from({ length: data.length / DIGEST }, (_, i) => data.subarray(i * DIGEST, (i + 1) * DIGEST));
  }

  const join = (left, right) => sha256(bytes(1), left, right);

  // Goes up from a node of the log: RFC 9162, 2.1.3.2 and 2.1.4.2. Its two numbers say where it and the last one stand.
  function climb(path, index, last, onLeft, onRight) {
    for (const step of path) {
      if (last === 0n) throw new ProofInvalid("the path of the proof is longer than the log is deep");
      if (index & 1n || index === last) {
        onLeft(step);
        while (index !== 0n && !(index & 1n)) [index, last] = [index >> 1n, last >> 1n];
      } else {
        onRight(step);
      }
      [index, last] = [index >> 1n, last >> 1n];
    }
    if (last !== 0n) throw new ProofInvalid("the path of the proof does not reach the root of the log");
  }

  // Returns {seq, root, count, at, chain} of the commit.
  function verifyCommit(proof, head, seq) {
    const { size, logRoot, facts } = headOf(head);
    const number = wholeNumber(seq);
    if (number === null || number < 1n || number > size) {
      throw new QuestionInvalid("there is no commit of that number under that head");
    }
    const body = bodyOf(proof, "commit");
    if (body.length < COMMIT_BYTES) throw new ProofInvalid("the proof is cut short");
    const at = decoded(body.subarray(TIME_AT, TIME_AT + TIME_BYTES)) ?? "";
    if (readU32(body, TIME_AT - 4) !== TIME_BYTES || !new RegExp(`^${TIME}$`).test(at)) {
      throw new ProofInvalid("the proof has a time that no commit has");
    }
    const count = readU64(body, COUNT_AT);
    if (count > INT_MAX) throw new ProofInvalid("the proof has a number that no store can have");
    const chain = sha256(bytes(3), body.subarray(0, DIGEST), u64(number), body.subarray(DIGEST, COMMIT_BYTES));
    let digest = sha256(bytes(0), chain);
    const onLeft = (step) => (digest = join(step, digest));
    const onRight = (step) => (digest = join(digest, step));
    climb(digestsOf(body.subarray(COMMIT_BYTES)), number - 1n, size - 1n, onLeft, onRight);
    if (!equal(digest, logRoot)) {
      throw new ProofInvalid("the proof leads to another history than the one that was signed");
    }
    const root = toHex(body.subarray(DIGEST, COUNT_AT));
    if (number === size && [root, count, at].join(" ") !== facts) {
      const what = `commit ${number} of the signed history has another root, count or time than the head says`;
      throw new ProofInvalid(what);
    }
    return { seq: number, root, count, at, chain: toHex(chain) };
  }

  // Heads of one commit must say the same of it, to its root, count and time.
  function verifyConsistency(proof, earlier, later) {
    const [old, now] = [headOf(earlier), headOf(later)];
    if (old.origin !== now.origin) {
      throw new ProofInvalid(`the heads are of two origins, '${old.origin}' and '${now.origin}'`);
    }
    const path = digestsOf(bodyOf(proof, "consistency"));
    if (old.size > now.size) {
      const sizes = `the later head has ${now.size} commits and the earlier one ${old.size}`;
      throw new ProofInvalid(`${sizes}: history was cut off`);
    }
    if (old.size === 0n || old.size === now.size) {
      const changed = old.size === now.size && !equal(old.logRoot, now.logRoot);
      if (path.length > 0 || changed || (old.size === 0n && !equal(old.logRoot, sha256()))) {
        throw new ProofInvalid("the two heads do not belong to one history, or the proof is for other heads");
      }
      if (old.size === now.size && old.facts !== now.facts) {
        const what = `the two heads say of commit ${now.size} another root, count or time`;
        throw new ProofInvalid(`${what}: one of them is false`);
      }
      return;
    }
    let [index, last] = [old.size - 1n, now.size - 1n];
    while (index & 1n) [index, last] = [index >> 1n, last >> 1n];
    const start = old.size & (old.size - 1n) ? (path.shift() ?? bytes()) : old.logRoot;
    let [before, after] = [start, start];
    const onLeft = (step) => ([before, after] = [join(step, before), join(step, after)]);
    const onRight = (step) => (after = join(after, step));
    climb(path, index, last, onLeft, onRight);
    if (!equal(before, old.logRoot) || !equal(after, now.logRoot)) {
      const what = "the proof does not show that the later history begins with the earlier one";
      throw new ProofInvalid(`${what}: it was changed, or the proof is for other heads`);
    }
  }

  // ---- Signed heads ----

  const NOTE_MAX = 131072;
  const SIGNATURES_MAX = 16;
  const KEY_ID = 4;
  const ED25519 = 1;
  // Listed, so that no version of Unicode changes them.
  const NAME = "[^\\x00-\\x20+\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
  const ORIGIN = "([^\\x00-\\x20+\\x7f-\\xa0\\u1680\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u3000\\ufeff]+)";
  const HEAD = new RegExp(
    `^${ORIGIN}\\n(0|[1-9][0-9]{0,18})\\n([A-Za-z0-9+/]{43}=)\\nroot ([0-9a-f]{64})\\n` +
      `count (0|[1-9][0-9]{0,18})\\nat (${TIME})\\n$`,
  );
  const SIGNATURE = new RegExp(`^\u2014 (${NAME}) ([A-Za-z0-9+/]+={0,2})$`);
  const PUBLIC = new RegExp(`^[ \\t\\r\\n]*${ORIGIN}\\+([0-9a-f]{8})\\+([A-Za-z0-9+/]{44})[ \\t\\r\\n]*$`);

  function isOrigin(text) {
    const raw = encoded(text);
    return raw !== null && raw.length <= NAME_MAX;
  }

  function publicKeyOf(text) {
    const refusal = new QuestionInvalid("this is no public key: it is one line, ORIGIN+HEX+BASE64");
    const found = typeof text === "string" ? PUBLIC.exec(text) : null;
    const data = found === null ? null : unbase64(found[3]);
    if (data === null || data[0] !== ED25519 || !isOrigin(found[1])) throw refusal;
    const [, origin, digits] = found;
    if (toHex(sha256(encoded(origin), bytes(0x0a), data).subarray(0, KEY_ID)) !== digits) throw refusal;
    return { origin, id: digits, key: data.slice(1) };
  }

  // What a C2SP signed note signs, and its signatures.
  function splitNote(note) {
    if (typeof note !== "string") throw new ProofInvalid("this is no signed head: it is no text");
    const raw = note.length > NOTE_MAX ? null : encoded(note);
    if (note.length > NOTE_MAX || (raw !== null && raw.length > NOTE_MAX)) {
      throw new ProofInvalid(`this is no signed head: it has more than ${NOTE_MAX} bytes`);
    }
    if (raw === null) throw new ProofInvalid("this is no signed head: it holds a lone surrogate");
    const cut = note.lastIndexOf("\n\n");
    if (cut < 0 || cut + 2 === note.length || !note.endsWith("\n")) {
      throw new ProofInvalid("this is no signed head: it is text, an empty line, and lines with signatures");
    }
    const lines = note.slice(cut + 2, -1).split("\n");
    if (lines.length > SIGNATURES_MAX) {
      throw new ProofInvalid(`the signed head has more than ${SIGNATURES_MAX} signatures`);
    }
    const signatures = lines.map((line) => {
      const found = SIGNATURE.exec(line);
      const data = found === null ? null : unbase64(found[2]);
      if (data === null || data.length <= KEY_ID) {
        throw new ProofInvalid("this is no signed head: a line below the empty one is no signature");
      }
      return { name: found[1], id: toHex(data.subarray(0, KEY_ID)), signature: data.slice(KEY_ID) };
    });
    return { body: note.slice(0, cut + 1), signatures };
  }

  async function signedBy(key, signature, data) {
    const ed25519 = { name: "Ed25519" };
    const { subtle } = globalThis.crypto ?? {};
    try {
      const imported = await subtle.importKey("raw", key, ed25519, false, ["verify"]);
      return await subtle.verify(ed25519, imported, signature, data);
    } catch (error) {
      // A key that is no point of the curve has signed nothing.
      if (subtle !== undefined && error.name === "DataError") return false;
      throw new Error("Ed25519 cannot be checked here: this browser lacks it, or the page came over plain HTTP");
    }
  }

  // Gives {origin, seq, logRoot, root, count, at, text}, once it is shown that the holder of the key signed it.
  async function verifyHead(note, publicKey) {
    const { origin, id, key } = publicKeyOf(publicKey);
    const { body, signatures } = splitNote(note);
    const found = HEAD.exec(body);
    const logRoot = found === null ? null : unbase64(found[3]);
    if (logRoot === null || !isOrigin(found[1])) {
      throw new ProofInvalid("this is signed, and is no head of a store of sqlstate");
    }
    const [seq, count] = [BigInt(found[2]), BigInt(found[5])];
    if (seq > INT_MAX || count > INT_MAX) {
      throw new ProofInvalid("the signed head has a number that no store can have");
    }
    const nothing = count === 0n && equal(logRoot, sha256()) && found[4] === toHex(EMPTY_ROOT);
    if (seq === 0n && !nothing) {
      throw new ProofInvalid("the signed head is of no commit, and says that there is something");
    }
    if (found[1] !== origin) {
      throw new ProofInvalid(`the signed head is of origin '${found[1]}', and the key is for '${origin}'`);
    }
    const ours = signatures.filter((each) => each.name === origin && each.id === id);
    if (ours.length === 0) throw new ProofInvalid("the head is not signed by this key");
    for (const { signature } of ours) {
      if (!(await signedBy(key, signature, encoded(body)))) {
        throw new ProofInvalid("the head was not signed by this key, or was changed since");
      }
    }
    return { origin, seq, logRoot: toHex(logRoot), root: found[4], count, at: found[6], text: note };
  }

  return {
    ProofInvalid,
    QuestionInvalid,
    fromBytes,
    fromJson,
    sha256,
    toBytes,
    toHex,
    toJson,
    verify,
    verifyAbsent,
    verifyCommit,
    verifyConsistency,
    verifyCount,
    verifyHead,
    verifyMany,
    verifyPresent,
    verifyRange,
  };
})();

if (typeof module === "object" && module.exports) module.exports = sqlstate;
