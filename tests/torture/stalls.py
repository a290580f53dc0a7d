"""Providers that stand still: for ever, which is a failure after the configured time, or for a while, which is none."""
from scene import BEGIN, END, PACE, Scene, once, said, spent

TESTS = []
FAILED = "model_request_failed_error"
TEXT = "[[say a text that is long enough for a middle]]"


def test(fn):
    TESTS.append(fn)
    return fn


def scene(tmp, serve, provider, ms, first=None):
    """Patience: until the first word, and from byte to byte then."""
    return Scene(tmp, serve, provider, models=f"first_ms = {(first or ms) * PACE}, stall_ms = {ms * PACE}")


@test
def for_ever(tmp, serve, provider):
    with scene(tmp, serve, provider, 1500) as s:
        s.run(*[(f"[[stall {where} x1]] {TEXT}", once(FAILED)) for where in ("head", "first", "mid", "late")])
        s.s.until("the end of all requests", lambda: s.mock.live() == 0)


@test
def every_time(tmp, serve, provider):
    with scene(tmp, serve, provider, 1500) as s:
        s.run((f"[[stall mid]] {TEXT}", spent(FAILED)), (f"[[stall head]] {TEXT}", spent(FAILED)))


@test
def for_a_while(tmp, serve, provider):
    with scene(tmp, serve, provider, 20000) as s:
        s.run(*[(f"[[stall {where} 700]] {TEXT}", BEGIN + END) for where in ("head", "first", "mid", "late", "over")])


@test
def pings_are_life(tmp, serve, provider):
    """Longer than the limit, but never silent."""
    with scene(tmp, serve, provider, 2000, 60000) as s:
        s.run(*[(f"[[stall {where} {4000 * PACE} pings]] {TEXT}", BEGIN + END) for where in ("first", "mid", "late")])


@test
def pings_for_ever(tmp, serve, provider):
    """A server that lives, and has nothing to say."""
    with scene(tmp, serve, provider, 1000, 2000) as s:
        s.run(*[(f"[[stall {where} pings x1]] {TEXT}", once(FAILED)) for where in ("first", "mid")])
        s.s.until("the end of all requests", lambda: s.mock.live() == 0)


@test
def slow_start(tmp, serve, provider):
    """Before its first word a model may take longer than between two of them."""
    with scene(tmp, serve, provider, 1000, 60000) as s:
        s.run(*[(f"[[stall {where} {3000 * PACE}]] {TEXT}", BEGIN + END) for where in ("head", "first")])


@test
def slow_words(tmp, serve, provider):
    """A reply that takes longer than the limit, word by word."""
    with scene(tmp, serve, provider, 2000) as s:
        s.run((f"[[slow {120 * PACE} ms]] [[long 40]]", BEGIN + END, lambda w, ev: check_words(ev)))


def check_words(ev):
    assert said(ev) == [" ".join(f"w{i}" for i in range(40))], said(ev)


@test
def open_after_the_end(tmp, serve, provider):
    """The reply is whole, the connection stays open: nobody waits for its end."""
    with Scene(tmp, serve, provider) as s:
        s.run((f"[[stall over]] {TEXT}", BEGIN + END))
        s.s.until("the end of all requests", lambda: s.mock.live() == 0)


@test
def interrupted(tmp, serve, provider):
    """An interrupt ends a request that stands still, and its connection."""
    with Scene(tmp, serve, provider) as s:
        for where in ("head", "first", "mid"):
            w = s.session()
            w.say(f"[[stall {where} x1]] {TEXT}")
            s.s.until("the request", lambda: s.mock.live() == 1)
            w.send({"type": "user.interrupt"})
            w.idle()
            w.equal(BEGIN + ["end!", "interrupt", "idle end_turn"])
            s.s.until("the end of the request", lambda: s.mock.live() == 0)
            w.goes_on()
