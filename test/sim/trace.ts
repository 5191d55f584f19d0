/** What happened, in order: a hash by which two runs are compared, and lines for people who asked for them. */
export class Trace {
  #low = 0x811c9dc5;
  #high = 0x9e3779b9;
  readonly #codes = new Map<string, number>();
  #print: ((line: string) => void) | undefined;
  #nowNs: () => number = () => 0;
  noteCount = 0;

  /** From here on every note is a line too. */
  printTo(print: (line: string) => void): void {
    this.#print = print;
  }

  setClock(nowNs: () => number): void {
    this.#nowNs = nowNs;
  }

  note(what: string, a = 0, b = 0): void {
    this.noteCount++;
    this.#mix(this.#codeOf(what));
    this.#mix(a);
    this.#mix(b);
    if (this.#print) this.#print(`${(this.#nowNs() / 1000).toFixed(1).padStart(14)} us  ${what} ${a} ${b}`);
  }

  /** Lines only. */
  explain(text: () => string): void {
    if (this.#print) this.#print(`${(this.#nowNs() / 1000).toFixed(1).padStart(14)} us  ${text()}`);
  }

  #codeOf(what: string): number {
    let code = this.#codes.get(what);
    if (code === undefined) this.#codes.set(what, (code = this.#codes.size));
    return code;
  }

  #mix(value: number): void {
    this.#low = Math.imul(this.#low ^ value, 0x01000193);
    this.#high = Math.imul((this.#high ^ value) + this.#low, 0x85ebca6b);
    this.#high ^= this.#high >>> 13;
  }

  get hash(): string {
    const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
    return hex(this.#high) + hex(this.#low);
  }
}
