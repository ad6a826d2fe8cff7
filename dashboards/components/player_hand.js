// What hands do on the picture: drag to select, click to move, pinch or ctrl and wheel to zoom, and
// the same by keys.

const CLICK = 4; // px that a pointer may move and still click
const STEP = 0.1; // s, of an arrow key
const ZOOM = 2; // of a key

class Hand {
  constructor(player) {
    this.player = player;
    this.picture = player.picture;
    this.stage = player.stage;
    this.drag = null;
    this.fingers = new Map(); // px of each pointer that is down
    this.stage.onkeydown = (event) => this.key(event);
    this.stage.onpointerdown = (event) => this.down(event);
    this.stage.onpointermove = (event) => this.move(event);
    this.stage.onpointerup = (event) => this.up(event);
    this.stage.onpointercancel = (event) => this.cancel(event);
    this.stage.onlostpointercapture = (event) => this.fingers.delete(event.pointerId);
    this.stage.onpointerleave = () => player.pointAt(null);
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  across(event) {
    return event.clientX - this.stage.getBoundingClientRect().left;
  }

  place(x) {
    return this.player.inside(this.picture.seconds(x));
  }

  // -- pointers --------------------------------------------------------------------------------

  down(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    const x = this.across(event);
    this.fingers.set(event.pointerId, x);
    const alone = this.fingers.size === 1;
    this.drag = alone ? { x, from: this.place(x), moved: false, span: null } : null;
  }

  move(event) {
    const x = this.across(event);
    if (this.fingers.size === 2 && this.fingers.has(event.pointerId)) {
      this.pinch(event.pointerId, x);
      return;
    }
    if (this.drag) {
      this.drag.moved ||= Math.abs(x - this.drag.x) > CLICK;
      this.drag.span = inOrder(this.drag.from, this.place(x));
    }
    this.player.pointAt(event.pointerType === "touch" ? null : x);
  }

  pinch(finger, x) {
    const measured = () => {
      const [one, other] = [...this.fingers.values()];
      return [Math.max(Math.abs(one - other), 10), (one + other) / 2];
    };
    const [width, middle] = measured();
    this.fingers.set(finger, x);
    const [now, there] = measured();
    this.player.zoom(now / width, this.picture.seconds(middle));
    this.player.pan(middle - there);
  }

  up(event) {
    const { drag, player } = this;
    this.cancel(event);
    if (!drag) return;
    if (drag.moved && drag.span[1] > drag.span[0]) {
      this.fixed = drag.from;
      player.select(drag.span);
      if (player.audio.paused) player.moveTo(drag.span[0]);
    } else {
      player.until = null;
      player.moveTo(this.place(this.across(event)));
    }
  }

  cancel(event) {
    this.fingers.delete(event.pointerId);
    this.drag = null;
    this.player.show();
  }

  // With ctrl, as browsers tell a pinch on a touchpad too, it zooms; sideways it moves.
  wheel(event) {
    const { deltaX, deltaY } = event;
    if (event.ctrlKey || event.metaKey) {
      const by = Math.min(Math.max(deltaY, -30), 30);
      this.player.zoom(Math.exp(-0.015 * by), this.picture.seconds(this.across(event)));
    } else if (Math.abs(deltaX) > Math.abs(deltaY) && !this.picture.whole) {
      this.player.pan(deltaX);
    } else {
      return;
    }
    event.preventDefault();
  }

  // -- keys ------------------------------------------------------------------------------------

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { player } = this;
    const { seconds } = player.data;
    // In a narrow window a step is narrow too.
    const step = Math.max(Math.min(STEP, this.picture.span / 10), 10 ** -DECIMALS);
    const [from, to] = this.picture.shown;
    const { cursor } = player;
    const about = cursor >= from && cursor <= to ? cursor : (from + to) / 2;
    const by = { ArrowLeft: -step, ArrowRight: step }[event.key];
    const does = {
      " ": () => player.toggle(),
      Escape: () => player.selection && player.select(null),
      Home: () => player.moveTo(0),
      End: () => player.moveTo(seconds),
      "+": () => player.zoom(ZOOM, about),
      "=": () => player.zoom(ZOOM, about), // + without shift
      "-": () => player.zoom(1 / ZOOM, about),
      0: () => player.look([0, seconds]),
    }[event.key];
    if (does) does();
    else if (by && event.shiftKey) this.extend(by);
    else if (by) player.moveTo(cursor + by);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // Moves the end that was dragged or moved last; sent once the keys rest.
  extend(by) {
    const { player } = this;
    const [from, to] = player.selection ?? [player.cursor, player.cursor];
    if (this.fixed !== to) this.fixed = from;
    player.moveTo((this.fixed === from ? to : from) + by);
    const span = inOrder(this.fixed, player.cursor);
    player.change(span[1] > span[0] ? span : null);
    player.reportSoon();
  }
}

function inOrder(a, b) {
  return a < b ? [a, b] : [b, a];
}
