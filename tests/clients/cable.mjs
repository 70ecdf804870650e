// A connection that can be cut, held and plugged in again.
import net from "node:net";

/** Passes bytes between a client and a server, until it is told not to. */
export class Cable {
  constructor(url) {
    this.target = new URL(url);
    this.pairs = new Set();
    this.isUp = true;
    this.losesAnswers = false;
    this.listener = net.createServer((client) => this.connect(client));
  }

  async plugIn() {
    await new Promise((resolve) => this.listener.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.listener.address().port}`;
    return this;
  }

  connect(client) {
    if (!this.isUp) {
      client.destroy();
      return;
    }
    const server = net.connect(Number(this.target.port), this.target.hostname);
    const pair = [client, server];
    this.pairs.add(pair);
    const drop = () => {
      this.pairs.delete(pair);
      for (const end of pair) end.destroy();
    };
    client.on("data", (data) => server.write(data));
    server.on("data", (data) => this.losesAnswers || client.write(data));
    for (const end of pair) {
      end.setNoDelay(true);
      end.on("close", drop);
      end.on("error", drop);
    }
  }

  /** Let nothing through that clients send from now on, until `release`. */
  hold() {
    for (const [client] of this.pairs) client.pause();
  }

  release() {
    for (const [client] of this.pairs) client.resume();
  }

  /** Say something to the server that no client has said. */
  slip(data) {
    for (const [, server] of this.pairs) server.write(data);
  }

  /** Drop every connection; `isUp` decides about the next ones. */
  cut() {
    for (const pair of [...this.pairs]) for (const end of pair) end.destroy();
  }

  close() {
    this.cut();
    this.listener.close();
  }
}
