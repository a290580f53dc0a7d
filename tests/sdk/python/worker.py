"""worker.py - self-hosted environments (API: resources §8): the SDK's own EnvironmentWorker, unmodified, serves sessions
of this server with its own tools, in a directory of this machine. The server gives it leases of ten seconds
(world.py), so it looks after them every five.
"""
import asyncio
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import urllib.request

import anthropic
from anthropic.lib.environments import EnvironmentWorker

import kit
from kit import KEY, MODEL, URL, Feed, beta, connect, message, of, said, same, send, test, types

TOOLSET = {"type": "agent_toolset_20260401"}
for name in ("anthropic", "asyncio"):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong here is meant to


def wait(fn, what, seconds=40):
    end = time.monotonic() + seconds
    while True:
        got = fn()
        if got:
            return got
        assert time.monotonic() < end, "waited %d s in vain for %s" % (seconds, what)
        time.sleep(0.05)


def tool(name, **input):
    return "[[tool %s %s]]" % (name, json.dumps(input))


class Worker:
    """One that runs until stop(), in a thread and a loop of its own; it has the environment's key alone."""

    def __init__(self, shop):
        self.shop, self.error, self.task = shop, None, None
        self.requests, self.ready = [], threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run()), daemon=True)
        self.thread.start()
        assert self.ready.wait(kit.LIMIT), "no worker"

    async def run(self):
        async def note(response):
            self.requests.append((response.request.method, response.request.url.path, response.status_code))

        http = anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [note]})
        client = connect(anthropic.AsyncAnthropic, api_key="sk-mr-of-nobody", http_client=http)
        worker = EnvironmentWorker(client, environment_id=self.shop.environment.id, environment_key=self.shop.key, workdir=self.shop.dir, max_idle=0.3)
        self.loop, self.task = asyncio.get_running_loop(), asyncio.ensure_future(worker.run())
        self.ready.set()
        try:
            await self.task
        except asyncio.CancelledError:
            pass
        except Exception as e:
            self.error = e

    def cancel(self):
        self.loop.call_soon_threadsafe(self.task.cancel)

    def stop(self):
        self.cancel()
        self.thread.join(kit.LIMIT - 10)
        assert not self.thread.is_alive(), "the worker does not end"
        if self.error:
            raise self.error


class Shop:
    """A self-hosted environment, its key, a directory, and what happens there."""

    def __init__(self, tools=(TOOLSET,)):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="moonrig-worker-"))
        self.environment = beta.environments.create(name="own", config={"type": "self_hosted"})
        self.agent = beta.agents.create(name="hand", model=MODEL, tools=list(tools))
        made = urllib.request.Request(URL + "/moonrig/v1/keys", method="POST", headers={"authorization": "Bearer " + KEY, "content-type": "application/json"},
                                      data=json.dumps({"name": "workers", "environment_id": self.environment.id}).encode())
        with urllib.request.urlopen(made, timeout=20) as answer:
            self.key = json.load(answer)["key"]
        self.items = connect(api_key=None, auth_token=self.key).beta.environments.work

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir, ignore_errors=True)

    def session(self):
        session = beta.sessions.create(agent=self.agent.id, environment_id=self.environment.id)
        return session, Feed(beta.sessions.events.stream(session.id))

    def list(self):
        return list(self.items.list(self.environment.id))

    def item(self, session):
        return next(i for i in self.list() if i.data.id == session.id)

    def state(self, item, state):
        def there():
            now = beta.environments.work.retrieve(item.id, environment_id=self.environment.id)
            return now.state == state and now

        return wait(there, "the item to be " + state)

    def path(self, name):
        return os.path.join(self.dir, name)

    def running(self, session):
        """A command that runs until the file `never` is there; the item that it holds."""
        send(session, message(tool("bash", command="touch begun; while [ ! -e never ]; do sleep 0.1; done", timeout_ms=100000) + " ;; [[say {result}]]"))
        wait(lambda: os.path.exists(self.path("begun")), "the command to run")
        return self.state(self.item(session), "active")


@test("worker/completes-a-session")
def _():
    with Shop() as shop:
        worker = Worker(shop)
        session, feed = shop.session()
        send(session, message(" ;; ".join([
            tool("bash", command="pwd; echo $((6 * 7)) > n.txt; export KEPT=yes"), tool("write", file_path="sub/a.txt", content="one\ntwo\n"),
            tool("edit", file_path="sub/a.txt", old_string="one", new_string="uno"), tool("grep", pattern="uno", path="sub"),
            tool("glob", pattern="**/*.txt"), tool("read", file_path="n.txt"), tool("bash", command='echo "$(cat n.txt) $KEPT"'), "[[say It said: {result}]]"])))
        events = feed.idle()
        same(said(events), ["It said: 42 yes"])
        got = of(events, "user.tool_result")
        same([e.tool_use_id for e in got], [e.id for e in of(events, "agent.tool_use")], "each call has one result")
        assert not any(e.is_error for e in got), got
        same(got[0].content[0].text, shop.dir, "it ran where the worker is")
        same(open(shop.path("sub/a.txt")).read(), "uno\ntwo\n")
        assert "sub/a.txt" in got[4].content[0].text, got[4]
        stopped = shop.state(shop.item(session), "stopped")
        assert stopped.acknowledged_at and stopped.started_at and stopped.latest_heartbeat_at, stopped
        send(session, message(tool("bash", command='echo "${KEPT:-a new shell}"') + " ;; [[say Again: {result}]]"))
        same(said(feed.idle(len(events))), ["Again: a new shell"])
        same(len(shop.list()), 2, "the message made an item of its own")
        worker.stop()
        feed.close()


@test("worker/confirmations")
def _():
    with Shop([dict(TOOLSET, default_config={"permission_policy": {"type": "always_ask"}})]) as shop:
        worker = Worker(shop)
        session, feed = shop.session()
        send(session, message('[[tools bash {"command":"touch yes"} | bash {"command":"touch no"}]] ;; [[say {result}]]'))
        first = feed.idle(0, "requires_action")
        yes, no = [e.id for e in of(first, "agent.tool_use")]
        send(session, {"type": "user.tool_confirmation", "tool_use_id": yes, "result": "allow"},
             {"type": "user.tool_confirmation", "tool_use_id": no, "result": "deny", "deny_message": "Not this one."})
        rest = feed.idle(len(first))
        same([e.tool_use_id for e in of(feed.events, "user.tool_result")], [yes])
        same([(e.tool_use_id, e.is_error) for e in of(feed.events, "agent.tool_result")], [(no, True)])
        assert "Not this one." in said(rest)[0], said(rest)
        same([os.path.exists(shop.path(f)) for f in ("yes", "no")], [True, False])
        worker.stop()
        feed.close()


@test("worker/lease-lost")
def _():
    with Shop() as shop:
        worker = Worker(shop)
        session, feed = shop.session()
        held = shop.running(session)
        # Somebody else gets the item: its lease is cut short, and it is polled once more.
        shop.items.heartbeat(held.id, environment_id=shop.environment.id, desired_ttl_seconds=1)
        taken = wait(lambda: shop.items.poll(shop.environment.id), "the item to be queued again")
        same((taken.id, taken.data.id), (held.id, session.id))
        shop.items.ack(held.id, environment_id=shop.environment.id)
        wait(lambda: any(r[1].endswith("/heartbeat") and r[2] == 412 for r in worker.requests), "a heartbeat to be refused")
        at = len(worker.requests)
        open(shop.path("never"), "w").close()  # what runs ends now: its result is nobody's
        worker.stop()
        same([r for r in worker.requests[at:] if r[0] == "POST" and r[2] < 400], [], "nothing that it posts after is taken")
        same(of(feed.events, "user.tool_result"), [])
        same(shop.item(session).state, "starting", "and it did not stop the item")
        feed.close()


@test("worker/stop-while-running")
def _():
    with Shop() as shop:
        worker = Worker(shop)
        session, feed = shop.session()
        held = shop.running(session)
        same(beta.environments.work.stop(held.id, environment_id=shop.environment.id).state, "stopping")
        shop.state(held, "stopped")
        open(shop.path("never"), "w").close()  # this SDK waits for a command that runs
        worker.stop()
        same([e for e in of(feed.events, "user.tool_result") if not e.is_error], [], "the command had no result")
        feed.close()


@test("worker/drained-while-it-serves")
def _():
    with Shop() as shop:
        worker = Worker(shop)
        session, feed = shop.session()
        held = shop.running(session)
        worker.cancel()
        open(shop.path("never"), "w").close()
        worker.stop()
        shop.state(held, "stopped")
        send(session, {"type": "user.interrupt"})  # if its last result was not sent any more
        feed.idle()
        following = Worker(shop)
        send(session, message(tool("bash", command="echo by another") + " ;; [[say {result}]]"))
        feed.until(lambda all: "by another" in said(all), "the next worker to serve it")
        following.stop()
        feed.close()


@test("worker/drain")
def _():
    with Shop() as shop:
        made = [beta.sessions.create(agent=shop.agent.id, environment_id=shop.environment.id).id for _ in range(3)]

        async def drain():
            client = connect(anthropic.AsyncAnthropic, api_key="sk-mr-of-nobody")
            poller = client.beta.environments.work.poller(environment_id=shop.environment.id, environment_key=shop.key, drain=True, block_ms=None)
            return [work.data.id async for work in poller]

        same(asyncio.run(drain()), made)
        same([i.state for i in shop.list()], ["stopping"] * 3)


@test("worker/reclaims-what-another-did-not-acknowledge")
def _():
    with Shop() as shop:
        session, feed = shop.session()
        same(shop.items.poll(shop.environment.id).data.id, session.id)
        worker = Worker(shop)
        send(session, message(tool("bash", command="echo reclaimed") + " ;; [[say {result}]]"))
        feed.until(lambda all: said(all) == ["reclaimed"], "the second worker to serve it")
        same(len(shop.list()), 1, "the same item")
        assert "session.error" not in types(feed.events)
        worker.stop()
        feed.close()
