// The events of the server, read with fetch rather than EventSource, which can send no token.

const SILENCE = 6000; // milliseconds without an event after which the connection is given up
const FIRST = 500;
const LAST = 5000;

export class Feed {
  /** `on` has tick(told), state(name, text) and denied(code, text). */
  constructor(on) {
    this.on = on;
    this.run = 0;
  }

  start(headers, namespace) {
    this.stop();
    this.follow(this.run, headers, namespace);
  }

  stop() {
    this.run += 1;
    this.abort?.abort();
  }

  async follow(run, headers, namespace) {
    let pause = FIRST;
    let lost = false;
    while (run === this.run) {
      this.on.state(lost ? "lost" : "connecting", lost ? "Connection lost, trying again" : "Connecting");
      const abort = new AbortController();
      this.abort = abort;
      let silence = setTimeout(() => abort.abort(), SILENCE);
      try {
        const query = new URLSearchParams(namespace ? { namespace } : {});
        const answer = await fetch(`api/events?${query}`, { headers, signal: abort.signal, cache: "no-store" });
        if (run !== this.run) return;
        if (!answer.ok) {
          const text = (await answer.json().catch(() => ({}))).error ?? `the server says ${answer.status}`;
          if ([400, 401, 403].includes(answer.status)) return this.on.denied(answer.status, text);
          throw new Error(text);
        }
        for await (const [name, told] of events(answer.body)) {
          if (run !== this.run) return;
          clearTimeout(silence);
          silence = setTimeout(() => abort.abort(), SILENCE);
          if (name === "refused") return this.on.denied(told.code, told.message);
          if (name === "bye") break;
          pause = FIRST;
          lost = false;
          this.on.state("live", "Live");
          try {
            this.on.tick(told);
          } catch (error) {
            console.error(error); // a mistake of this page's is no lost connection
          }
        }
      } catch (error) {
        if (run !== this.run) return;
      } finally {
        clearTimeout(silence);
        abort.abort();
      }
      lost = true;
      this.on.state("lost", "Connection lost, trying again");
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(pause * 2, LAST);
    }
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
      if (name && data) yield [name, JSON.parse(data)];
    }
  }
}
