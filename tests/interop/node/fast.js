"use strict";
// Lets a process live in a time that goes faster than the real one: `node --require fast.js ...`. CLOCK says how:
// {"began": 1700000000000, "shown": 1600000000000, "speed": 240} is a clock that showed `shown` at the real time
// `began`, and goes `speed` times as fast. Timers are shortened alike; those of setInterval are not.

const { began, shown, speed } = JSON.parse(process.env.CLOCK);
const RealDate = Date;
const realTimeout = setTimeout;

const now = () => Math.floor(shown + (performance.timeOrigin + performance.now() - began) * speed);

globalThis.Date = class Date extends RealDate {
  constructor(...given) {
    super(...(given.length ? given : [now()]));
  }

  static now() {
    return now();
  }
};

globalThis.setTimeout = (work, delay, ...rest) => realTimeout(work, delay / speed, ...rest);
