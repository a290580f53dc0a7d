// story.go - agents, environments, sessions; send, stream, previews; tools, confirmations, interrupt. Event orders
// are those of the worked traces (API: sessions, worked traces A to D).
package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/toolrunner"
)

type streamed = anthropic.BetaManagedAgentsStreamSessionEventsUnion

const (
	ask     = `{"type":"agent_toolset_20260401","configs":[{"type":"bash","name":"bash","permission_policy":{"type":"always_ask"}}]}`
	weather = `{"type":"custom","name":"get_weather","description":"The weather of a city","input_schema":{"type":"object",
		"properties":{"city":{"type":"string"}},"required":["city"]}}`
)

var (
	clerk       *anthropic.BetaManagedAgentsAgent
	environment *anthropic.BetaEnvironment
)

func newAgent(format string, args ...any) *anthropic.BetaManagedAgentsAgent {
	return must(beta.Agents.New(ctx, params[anthropic.BetaAgentNewParams](format, args...)))
}

// open makes a session of an agent, with more parameters as they stand in JSON, and its stream.
func open(agent string, more string) (*anthropic.BetaManagedAgentsSession, *feed[streamed]) {
	s := must(beta.Sessions.New(ctx, params[anthropic.BetaSessionNewParams](`{"agent":%q,"environment_id":%q%s}`, agent, environment.ID, more)))
	return s, follow(beta.Sessions.Events.StreamEvents(ctx, s.ID, anthropic.BetaSessionEventStreamParams{}))
}

func trySend(session, events string) ([]event, error) {
	r, err := beta.Sessions.Events.Send(ctx, session, params[anthropic.BetaSessionEventSendParams](`{"events":[%s]}`, events))
	if err != nil {
		return nil, err
	}
	must(r, nil)
	all := []event{}
	for _, e := range r.Data {
		all = append(all, plain(e))
	}
	return all, nil
}

func send(session, events string) []event {
	all, err := trySend(session, events)
	if err != nil {
		fail("%v", err)
	}
	return all
}

func message(s string) string {
	return `{"type":"user.message","content":[{"type":"text","text":` + quote(s) + `}]}`
}

func confirm(use, more string) string {
	return fmt.Sprintf(`{"type":"user.tool_confirmation","tool_use_id":%q,%s}`, use, more)
}

func listed(session string, p anthropic.BetaSessionEventListParams) (all []event) {
	pages := beta.Sessions.Events.ListAutoPaging(ctx, session, p)
	for pages.Next() {
		all = append(all, plain(must(pages.Current(), nil)))
	}
	check(pages.Err() == nil, "%v", pages.Err())
	return all
}

func sessions(p anthropic.BetaSessionListParams) (all []string) {
	pages := beta.Sessions.ListAutoPaging(ctx, p)
	for pages.Next() {
		all = append(all, must(pages.Current(), nil).ID)
	}
	check(pages.Err() == nil, "%v", pages.Err())
	return all
}

func crud() {
	test("crud/agent", func() {
		clerk = newAgent(`{"name":"clerk","model":{"id":%q},"system":"You keep the books.","metadata":{"team":"finance"},"tools":[%s,%s]}`, model, ask, weather)
		same(clerk.Version, 1)
		same(clerk.Metadata, map[string]string{"team": "finance"})
		clerk = must(beta.Agents.Update(ctx, clerk.ID, params[anthropic.BetaAgentUpdateParams](`{"version":1,"description":"Keeps books"}`)))
		same(clerk.Version, 2)
		first := must(beta.Agents.Get(ctx, clerk.ID, anthropic.BetaAgentGetParams{Version: anthropic.Int(1)}))
		same(first.Description, "")
		var versions []int64
		pages := beta.Agents.Versions.ListAutoPaging(ctx, clerk.ID, anthropic.BetaAgentVersionListParams{Limit: anthropic.Int(1)})
		for pages.Next() {
			versions = append(versions, pages.Current().Version)
		}
		same(versions, []int{2, 1})
		gone := must(beta.Agents.Archive(ctx, newAgent(`{"name":"short-lived","model":{"id":%q}}`, model).ID, anthropic.BetaAgentArchiveParams{}))
		check(!gone.ArchivedAt.IsZero(), "not archived")
	})
	test("crud/environment", func() {
		environment = must(beta.Environments.New(ctx, params[anthropic.BetaEnvironmentNewParams](`{"name":"office","metadata":{"a":"1"},
			"config":{"type":"cloud","networking":{"type":"limited","allowed_hosts":["example.com"]}}}`)))
		same(environment.Config.Networking.AllowedHosts, []string{"example.com"})
		same(must(beta.Environments.Get(ctx, environment.ID, anthropic.BetaEnvironmentGetParams{})).Name, "office")
		extra := must(beta.Environments.New(ctx, params[anthropic.BetaEnvironmentNewParams](`{"name":"extra"}`)))
		must(beta.Environments.Archive(ctx, extra.ID, anthropic.BetaEnvironmentArchiveParams{}))
		same(must(beta.Environments.Delete(ctx, extra.ID, anthropic.BetaEnvironmentDeleteParams{})).Type, "environment_deleted")
	})
	test("crud/session", func() {
		s, f := open(clerk.ID, `,"title":"March","metadata":{"month":"3"}`)
		same([]any{s.Status, s.Agent.Version, s.Title}, []any{"idle", 2, "March"})
		same(must(beta.Sessions.Get(ctx, s.ID, anthropic.BetaSessionGetParams{})).ID, s.ID)
		now := must(beta.Sessions.Update(ctx, s.ID, params[anthropic.BetaSessionUpdateParams](`{"title":"April"}`)))
		same([]any{now.Title, now.Metadata}, []any{"April", map[string]string{"month": "3"}})
		check(slices.Contains(sessions(anthropic.BetaSessionListParams{AgentID: anthropic.String(clerk.ID)}), s.ID), "not listed")
		same(must(beta.Sessions.Delete(ctx, s.ID, anthropic.BetaSessionDeleteParams{})).Type, "session_deleted")
		same(types(f.end()), []string{"session.updated", "session.deleted"})
		refused(404, "not_found_error", second(beta.Sessions.Get(ctx, s.ID, anthropic.BetaSessionGetParams{})))
	})
}

func streams() {
	test("stream/before-send-and-list-after", func() {
		s, f := open(clerk.ID, "")
		sent := send(s.ID, message("[[say Hello from the ledger.]]"))
		got := f.idle(0, "end_turn")
		same(types(got), lines(begin, []string{"user.message"}, turn, triple))
		same([]any{said(got), got[2].ID, got[1].AgentName}, []any{"[Hello from the ledger.]", sent[0].ID, "clerk"})
		same(ids(listed(s.ID, anthropic.BetaSessionEventListParams{})), ids(got))
		same(ids(listed(s.ID, anthropic.BetaSessionEventListParams{Limit: anthropic.Int(2)})), ids(got), "pages of two")
		some := listed(s.ID, params[anthropic.BetaSessionEventListParams](`{}`))
		same(len(some), len(got))
		threads := must(beta.Sessions.Threads.List(ctx, s.ID, anthropic.BetaSessionThreadListParams{})).Data
		same([]any{len(threads), threads[0].ID, threads[0].ParentThreadID}, []any{1, got[1].SessionThreadID, ""})
		own := must(beta.Sessions.Threads.Events.List(ctx, threads[0].ID, anthropic.BetaSessionThreadEventListParams{SessionID: s.ID}))
		same(len(own.Data), len(got))
		done := must(beta.Sessions.Archive(ctx, s.ID, anthropic.BetaSessionArchiveParams{}))
		same(done.Status, "terminated")
		all := f.end()
		same(all[len(all)-1].Type, "session.status_terminated")
	})
	test("stream/previews-fold-into-the-message", func() {
		s, without := open(clerk.ID, "")
		with := follow(beta.Sessions.Events.StreamEvents(ctx, s.ID, anthropic.BetaSessionEventStreamParams{
			EventDeltas: []anthropic.BetaManagedAgentsDeltaType{"agent.message"}}))
		send(s.ID, message("[[say One two three four five.]] [[slow 5 ms]]"))
		whole := one(with.idle(0, "end_turn"), "agent.message")
		var acc anthropic.BetaManagedAgentsEventAccumulator
		seen := ""
		for _, e := range with.typed {
			acc.Accumulate(e)
			if e.Type == "event_delta" {
				seen += e.AsEventDelta().Delta.Content.Text
				same(acc.AgentMessageText(e.EventID), seen)
				same(e.EventID, whole.ID)
			}
		}
		check(seen != "" && strings.HasPrefix(whole.Content[0].Text, seen), "%q", seen)
		same(acc.AgentMessageText(whole.ID), "One two three four five.")
		same(types(without.idle(0, "end_turn")), lines(begin, []string{"user.message"}, turn, triple))
		with.close()
		without.close()
	})
}

// toolRunner is what the SDK's runner did until it stopped by itself.
func toolRunner(session string, tools ...anthropic.BetaTool) func() []anthropic.DispatchedToolCall {
	quiet := 300 * time.Millisecond
	r := beta.Sessions.Events.NewToolRunner(ctx, session, anthropic.SessionToolRunnerOptions{Tools: tools, MaxIdle: &quiet})
	done := make(chan []anthropic.DispatchedToolCall, 1)
	go func() {
		var calls []anthropic.DispatchedToolCall
		for r.Next() {
			calls = append(calls, r.Current())
		}
		done <- calls
	}()
	return func() []anthropic.DispatchedToolCall {
		calls := <-done
		check(ctx.Err() == nil, "the runner does not stop: %v", r.Err())
		return calls
	}
}

func tool(name string, answer func(map[string]any) string) anthropic.BetaTool {
	t, err := toolrunner.NewBetaToolFromBytes(name, "a tool", []byte(`{"type":"object","properties":{"city":{"type":"string"}}}`),
		func(_ context.Context, in map[string]any) (anthropic.BetaToolResultBlockParamContentUnion, error) {
			return anthropic.BetaToolResultBlockParamContentUnion{OfText: &anthropic.BetaTextBlockParam{Text: answer(in)}}, nil
		})
	if err != nil {
		fail("%v", err)
	}
	return t
}

func outcomes(calls []anthropic.DispatchedToolCall) (all []string) {
	for _, c := range calls {
		all = append(all, fmt.Sprintf("%s posted=%v error=%v", c.Name, c.Posted, c.IsError))
	}
	return all
}

func tools() {
	forecast := func() anthropic.BetaTool {
		return tool("get_weather", func(in map[string]any) string { return fmt.Sprint(in["city"], ": 12 C") })
	}
	test("tools/answered-by-the-client", func() {
		s, f := open(clerk.ID, "")
		send(s.ID, message(`[[tools get_weather {"city":"Oslo"} | get_weather {"city":"Rome"}]] ;; [[say {result}]]`))
		asked := f.idle(0, "requires_action")
		calls := of(asked, "agent.custom_tool_use")
		same(asked[len(asked)-1].StopReason.EventIDs, ids(calls))
		answer := `{"type":"user.custom_tool_result","custom_tool_use_id":%q,"content":[{"type":"text","text":%q}]}`
		first := send(s.ID, fmt.Sprintf(answer, calls[0].ID, "4 C"))
		check(first[0].ProcessedAt != nil, "a result is processed on receipt")
		partial := f.idle(len(asked), "requires_action")
		same(types(partial), lines([]string{"user.custom_tool_result"}, triple))
		send(s.ID, fmt.Sprintf(answer, calls[1].ID, "18 C"))
		same(said(f.idle(len(asked)+len(partial), "end_turn")), "[4 C\n18 C]")
		f.close()
	})
	test("tools/runner", func() {
		s, f := open(clerk.ID, "")
		wait := toolRunner(s.ID, forecast())
		send(s.ID, message(`[[tools get_weather {"city":"Oslo"} | get_weather {"city":"Bonn"}]] ;; [[say {result}]]`))
		same(said(f.idle(0, "end_turn")), "[Oslo: 12 C\nBonn: 12 C]")
		same(outcomes(wait()), "[get_weather posted=true error=false get_weather posted=true error=false]")
		f.close()
	})
	test("tools/runner-attached-later-and-until-the-session-ends", func() {
		s, f := open(clerk.ID, "")
		send(s.ID, message(`[[tool get_weather {"city":"Kiel"}]] ;; [[say {result}]]`))
		f.idle(0, "requires_action")
		same(outcomes(toolRunner(s.ID, forecast())()), "[get_weather posted=true error=false]")
		same(said(f.idle(0, "end_turn")), "[Kiel: 12 C]")
		must(beta.Sessions.Archive(ctx, s.ID, anthropic.BetaSessionArchiveParams{}))
		f.end()
		same(len(toolRunner(s.ID, forecast())()), 0, "a runner on an ended session ends")
	})
	test("tools/runner-cannot-answer-for-the-server", func() {
		s, f := open(newAgent(`{"name":"hands","model":{"id":%q},"tools":[{"type":"agent_toolset_20260401"}]}`, model).ID, "")
		wait := toolRunner(s.ID, tool("bash", func(map[string]any) string { return "made up" }))
		send(s.ID, message(`[[tool bash {"command":"sleep 0.3; echo real"}]] ;; [[say {result}]]`))
		got := f.idle(0, "end_turn")
		calls := wait()
		check(len(calls) == 1 && !calls[0].Posted, "%v", outcomes(calls))
		same(len(of(got, "user.tool_result")), 0)
		if sandbox {
			same(said(got), "[real]")
		}
		f.close()
	})
}

func confirmations() {
	test("confirmation/allow", func() {
		s, f := open(clerk.ID, "")
		send(s.ID, message(`[[tool bash {"command":"echo $((6*7))"}]] ;; [[say {result}]]`))
		asked := f.idle(0, "requires_action")
		use := one(asked, "agent.tool_use")
		same([]any{use.EvaluatedPermission, asked[len(asked)-1].StopReason.EventIDs}, []any{"ask", []string{use.ID}})
		e := refused(400, "invalid_request_error", second(trySend(s.ID, message("hello?"))))
		check(strings.Contains(e.Error(), "waiting on responses to events ["+use.ID+"]"), "%s", e.Error())
		send(s.ID, confirm(use.ID, `"result":"allow"`))
		rest := f.idle(len(asked), "end_turn")
		same(types(rest), lines(begin, []string{"user.tool_confirmation", "agent.tool_result"}, turn, triple))
		if sandbox {
			same(said(rest), "[42]")
		}
		f.close()
	})
	test("confirmation/deny", func() {
		s, f := open(clerk.ID, "")
		send(s.ID, message(`[[tool bash {"command":"rm -rf build"}]] ;; [[say {result}]]`))
		asked := f.idle(0, "requires_action")
		use := one(asked, "agent.tool_use")
		send(s.ID, confirm(use.ID, `"result":"deny","deny_message":"Use staging."`))
		rest := f.idle(len(asked), "end_turn")
		check(one(rest, "agent.tool_result").IsError && strings.Contains(said(rest)[0], "Use staging."), "%v", said(rest))
		refused(400, "invalid_request_error", second(trySend(s.ID, confirm(use.ID, `"result":"allow"`))))
		f.close()
	})
}

func interrupts() {
	test("interrupt/and-redirect", func() {
		s, f := open(clerk.ID, "")
		send(s.ID, message("[[long 4000]] [[slow 20 ms]]"))
		f.until(func(all []event) bool { return len(of(all, "span.model_request_start")) > 0 }, "the model to be asked")
		sent := send(s.ID, `{"type":"user.interrupt"},`+message("[[say Just three lines.]]"))
		check(sent[0].ProcessedAt == nil && sent[1].ProcessedAt == nil, "queued, not yet processed")
		got := f.until(func(all []event) bool { return len(of(all, "session.status_idle")) == 2 }, "two idles")
		same(types(got), lines(begin, []string{"user.message", "span.model_request_start", "span.model_request_end", "user.interrupt"}, triple,
			begin, []string{"user.message"}, turn, triple))
		same([]any{got[4].IsError, got[8].StopReason.Type, said(got)}, []any{true, "end_turn", "[Just three lines.]"})
		f.close()
	})
	test("interrupt/while-blocked", func() {
		s, f := open(clerk.ID, "")
		send(s.ID, message(`[[tool get_weather {"city":"Oslo"}]]`))
		asked := f.idle(0, "requires_action")
		send(s.ID, `{"type":"user.interrupt"}`)
		rest := f.idle(len(asked), "end_turn")
		same(types(rest)[len(rest)-3:], triple)
		same(len(of(rest, "span.model_request_start")), 0, "the model is not asked")
		f.close()
	})
}
