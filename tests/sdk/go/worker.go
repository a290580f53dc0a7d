// worker.go - self-hosted environments (API: resources §8): the SDK's own EnvironmentWorker, unmodified, serves
// sessions of this server with its own tools, in a directory of this machine. The server gives it leases of ten seconds
// (world.py), so it looks after them every five.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/lib/environments"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"github.com/anthropics/anthropic-sdk-go/v2/packages/param"
)

const toolset = `{"type":"agent_toolset_20260401"}`

func wait(done func() bool, what string) {
	for !done() {
		select {
		case <-ctx.Done():
			fail("in vain before %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func use(name, input string) string { return "[[tool " + name + " " + input + "]]" }

// shop is a self-hosted environment, its key, and a directory where workers work.
type shop struct {
	dir, id, agent, key string
	items               anthropic.BetaEnvironmentWorkService // as the holder of the key sees them
}

func openShop(tools string) *shop {
	dir := must(os.MkdirTemp("", "moonrig-worker-"))
	s := &shop{dir: must(filepath.EvalSymlinks(dir))}
	s.id = must(beta.Environments.New(ctx, params[anthropic.BetaEnvironmentNewParams](`{"name":"own","config":{"type":"self_hosted"}}`))).ID
	s.agent = newAgent(`{"name":"hand","model":{"id":%q},"tools":[%s]}`, model, tools).ID
	ask := must(http.NewRequestWithContext(ctx, "POST", url+"/moonrig/v1/keys", bytes.NewReader([]byte(jsonOf(map[string]string{"name": "workers", "environment_id": s.id})))))
	ask.Header.Set("authorization", "Bearer "+key)
	answer, err := http.DefaultClient.Do(ask)
	check(err == nil, "%v", err)
	defer answer.Body.Close()
	var made struct{ Key string }
	check(json.NewDecoder(answer.Body).Decode(&made) == nil && made.Key != "", "no key: %d", answer.StatusCode)
	s.key = made.Key
	holder := anthropic.NewClient(option.WithBaseURL(url), option.WithAuthToken(s.key))
	s.items = holder.Beta.Environments.Work
	return s
}

func (s *shop) close() { os.RemoveAll(s.dir) }

func (s *shop) path(name string) string { return filepath.Join(s.dir, name) }

func (s *shop) there(name string) bool {
	_, err := os.Stat(s.path(name))
	return err == nil
}

func (s *shop) touch(name string) { check(os.WriteFile(s.path(name), nil, 0o600) == nil, "%s", name) }

func (s *shop) session() (*anthropic.BetaManagedAgentsSession, *feed[streamed]) {
	made := must(beta.Sessions.New(ctx, params[anthropic.BetaSessionNewParams](`{"agent":%q,"environment_id":%q}`, s.agent, s.id)))
	return made, follow(beta.Sessions.Events.StreamEvents(ctx, made.ID, anthropic.BetaSessionEventStreamParams{}))
}

func (s *shop) list() []anthropic.BetaSelfHostedWork {
	return must(s.items.List(ctx, s.id, anthropic.BetaEnvironmentWorkListParams{})).Data
}

func (s *shop) item(session string) anthropic.BetaSelfHostedWork {
	for _, i := range s.list() {
		if i.Data.ID == session {
			return i
		}
	}
	fail("no item of %s", session)
	return anthropic.BetaSelfHostedWork{}
}

func (s *shop) state(id, state string) (now *anthropic.BetaSelfHostedWork) {
	wait(func() bool {
		now = must(beta.Environments.Work.Get(ctx, id, anthropic.BetaEnvironmentWorkGetParams{EnvironmentID: s.id}))
		return string(now.State) == state
	}, "the item to be "+state)
	return now
}

// running sends a command that runs until the file never is there, and returns the item that it holds.
func (s *shop) running(session string) string {
	send(session, message(use("bash", `{"command":"touch begun; while [ ! -e never ]; do sleep 0.1; done","timeout_ms":100000}`)+" ;; [[say {result}]]"))
	wait(func() bool { return s.there("begun") }, "the command to run")
	id := s.item(session).ID
	s.state(id, "active")
	return id
}

// worker is one that runs until stop, with the environment's key alone.
type worker struct {
	cancel context.CancelFunc
	over   chan error
	lock   sync.Mutex
	posts  []struct {
		path   string
		status int
	}
}

func (s *shop) worker() *worker {
	own, cancel := context.WithCancel(ctx)
	w := &worker{cancel: cancel, over: make(chan error, 1)}
	note := func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		answer, err := next(r)
		if err == nil && r.Method == "POST" {
			w.lock.Lock()
			w.posts = append(w.posts, struct {
				path   string
				status int
			}{r.URL.Path, answer.StatusCode})
			w.lock.Unlock()
		}
		return answer, err
	}
	idle := 300 * time.Millisecond
	c := anthropic.NewClient(option.WithBaseURL(url), option.WithAPIKey("sk-mr-of-nobody"), option.WithMiddleware(note))
	r := environments.NewEnvironmentWorker(c, environments.EnvironmentWorkerOptions{
		EnvironmentID: s.id, EnvironmentKey: s.key, Workdir: s.dir, MaxIdle: &idle, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	go func() { w.over <- r.Run(own) }()
	return w
}

func (w *worker) stop() {
	w.cancel()
	select {
	case err := <-w.over:
		check(err == nil, "the worker: %v", err)
	case <-ctx.Done():
		fail("the worker does not end")
	}
}

// taken counts what it has posted with success since the n-th post; at: the number of posts to here.
func (w *worker) taken(n int) (ok int, at int) {
	w.lock.Lock()
	defer w.lock.Unlock()
	for _, p := range w.posts[n:] {
		if p.status < 400 {
			ok++
		}
	}
	return ok, len(w.posts)
}

func (w *worker) refused(path string, status int) bool {
	w.lock.Lock()
	defer w.lock.Unlock()
	for _, p := range w.posts {
		if strings.HasSuffix(p.path, path) && p.status == status {
			return true
		}
	}
	return false
}

func workers() {
	test("worker/completes-a-session", func() {
		s := openShop(toolset)
		defer s.close()
		w := s.worker()
		made, f := s.session()
		send(made.ID, message(strings.Join([]string{
			use("bash", `{"command":"pwd; echo $((6 * 7)) > n.txt; export KEPT=yes"}`), use("write", `{"file_path":"sub/a.txt","content":"one\ntwo\n"}`),
			use("edit", `{"file_path":"sub/a.txt","old_string":"one","new_string":"uno"}`), use("grep", `{"pattern":"uno","path":"sub"}`),
			use("glob", `{"pattern":"**/*.txt"}`), use("read", `{"file_path":"n.txt"}`), use("bash", `{"command":"echo \"$(cat n.txt) $KEPT\""}`), "[[say It said: {result}]]",
		}, " ;; ")))
		got := f.idle(0, "end_turn")
		same(strings.TrimSpace(strings.Join(said(got), "")), "It said: 42 yes")
		results, uses := of(got, "user.tool_result"), of(got, "agent.tool_use")
		same([]any{len(results), len(uses)}, []any{7, 7})
		for i, r := range results {
			same([]any{r.ToolUseID, r.IsError}, []any{uses[i].ID, false}, jsonOf(r))
		}
		same(strings.TrimSpace(results[0].Content[0].Text), s.dir, "it ran where the worker is")
		same(string(must(os.ReadFile(s.path("sub/a.txt")))), "uno\ntwo\n")
		check(strings.Contains(results[4].Content[0].Text, "sub/a.txt"), "%v", results[4])
		s.state(s.item(made.ID).ID, "stopped")
		send(made.ID, message(use("bash", `{"command":"echo \"${KEPT:-a new shell}\""}`)+" ;; [[say Again: {result}]]"))
		same(strings.TrimSpace(strings.Join(said(f.idle(len(got), "end_turn")), "")), "Again: a new shell")
		same(len(s.list()), 2, "the message made an item of its own")
		w.stop()
		f.close()
	})
	test("worker/confirmations", func() {
		s := openShop(`{"type":"agent_toolset_20260401","default_config":{"permission_policy":{"type":"always_ask"}}}`)
		defer s.close()
		w := s.worker()
		made, f := s.session()
		send(made.ID, message(`[[tools bash {"command":"touch yes"} | bash {"command":"touch no"}]] ;; [[say {result}]]`))
		first := f.idle(0, "requires_action")
		uses := of(first, "agent.tool_use")
		send(made.ID, confirm(uses[0].ID, `"result":"allow"`)+","+confirm(uses[1].ID, `"result":"deny","deny_message":"Not this one."`))
		rest := f.idle(len(first), "end_turn")
		same(one(f.events, "user.tool_result").ToolUseID, uses[0].ID)
		denied := one(f.events, "agent.tool_result")
		same([]any{denied.ToolUseID, denied.IsError}, []any{uses[1].ID, true})
		check(strings.Contains(said(rest)[0], "Not this one."), "%v", said(rest))
		same([]any{s.there("yes"), s.there("no")}, []any{true, false})
		w.stop()
		f.close()
	})
	test("worker/lease-lost", func() {
		s := openShop(toolset)
		defer s.close()
		w := s.worker()
		made, f := s.session()
		held := s.running(made.ID)
		// Somebody else keeps the lease from now on: the worker's next heartbeat expects another one than the latest.
		must(s.items.Heartbeat(ctx, held, anthropic.BetaEnvironmentWorkHeartbeatParams{EnvironmentID: s.id}))
		wait(func() bool { return w.refused("/heartbeat", 412) }, "a heartbeat to be refused")
		_, at := w.taken(0)
		s.touch("never")
		w.stop()
		ok, _ := w.taken(at)
		same(ok, 0, "nothing is posted after")
		same(len(of(f.events, "user.tool_result")), 0)
		same(s.item(made.ID).State, "active", "and it did not stop the item")
		f.close()
	})
	test("worker/item-taken", func() {
		s := openShop(toolset)
		defer s.close()
		w := s.worker()
		made, f := s.session()
		held := s.running(made.ID)
		// Somebody else gets the item: its lease is cut short, and it is polled once more.
		must(s.items.Heartbeat(ctx, held, anthropic.BetaEnvironmentWorkHeartbeatParams{EnvironmentID: s.id, DesiredTTLSeconds: param.NewOpt(int64(1))}))
		wait(func() bool {
			got, err := s.items.Poll(ctx, s.id, anthropic.BetaEnvironmentWorkPollParams{})
			return err == nil && got != nil && got.ID == held
		}, "the item to be queued again")
		must(s.items.Ack(ctx, held, anthropic.BetaEnvironmentWorkAckParams{EnvironmentID: s.id}))
		_, at := w.taken(0)
		wait(func() bool { return w.refused("/heartbeat", 412) || w.refused("/stop", 409) }, "the worker to see that it lost the item")
		s.touch("never") // what runs ends now: its result is nobody's
		w.stop()
		ok, _ := w.taken(at)
		same(ok, 0, "nothing that it posts after is taken")
		same(len(of(f.events, "user.tool_result")), 0)
		same(s.item(made.ID).State, "starting", "and it did not stop the item")
		f.close()
	})
	test("worker/stop-while-running", func() {
		s := openShop(toolset)
		defer s.close()
		w := s.worker()
		made, f := s.session()
		held := s.running(made.ID)
		asked := must(beta.Environments.Work.Stop(ctx, held, anthropic.BetaEnvironmentWorkStopParams{EnvironmentID: s.id}))
		same(asked.State, "stopping")
		s.state(held, "stopped")
		s.touch("never")
		w.stop()
		for _, r := range of(f.events, "user.tool_result") {
			check(r.IsError, "the command had a result: %v", r)
		}
		f.close()
	})
	test("worker/drained-while-it-serves", func() {
		s := openShop(toolset)
		defer s.close()
		w := s.worker()
		made, f := s.session()
		held := s.running(made.ID)
		w.cancel()
		s.touch("never")
		w.stop()
		s.state(held, "stopped")
		send(made.ID, `{"type":"user.interrupt"}`) // if its last result was not sent any more
		f.idle(0, "end_turn")
		next := s.worker()
		send(made.ID, message(use("bash", `{"command":"echo by another"}`)+" ;; [[say {result}]]"))
		f.until(func(all []event) bool { return strings.Contains(strings.Join(said(all), " "), "by another") }, "the next worker to serve it")
		next.stop()
		f.close()
	})
	test("worker/drain", func() {
		s := openShop(toolset)
		defer s.close()
		var made, got []string
		for range 3 {
			one := must(beta.Sessions.New(ctx, params[anthropic.BetaSessionNewParams](`{"agent":%q,"environment_id":%q}`, s.agent, s.id)))
			made = append(made, one.ID)
		}
		c := anthropic.NewClient(option.WithBaseURL(url), option.WithAPIKey("sk-mr-of-nobody"))
		p := environments.NewWorkPoller(ctx, c, environments.WorkPollerOptions{EnvironmentID: s.id, EnvironmentKey: s.key, Drain: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		defer p.Close()
		for p.Next() {
			got = append(got, p.Current().Data.ID)
		}
		check(p.Err() == nil, "%v", p.Err())
		same(got, made)
		for _, i := range s.list() {
			same(i.State, "stopping")
		}
	})
	test("worker/reclaims-what-another-did-not-acknowledge", func() {
		s := openShop(toolset)
		defer s.close()
		made, f := s.session()
		same(must(s.items.Poll(ctx, s.id, anthropic.BetaEnvironmentWorkPollParams{})).Data.ID, made.ID)
		w := s.worker()
		send(made.ID, message(use("bash", `{"command":"echo reclaimed"}`)+" ;; [[say {result}]]"))
		f.until(func(all []event) bool { return strings.TrimSpace(strings.Join(said(all), "")) == "reclaimed" }, "the second worker to serve it")
		same(len(s.list()), 1, "the same item")
		w.stop()
		f.close()
	})
}
