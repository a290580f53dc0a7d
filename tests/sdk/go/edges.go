// edges.go - paging, errors, a stream that is taken up again, and how this generation of the SDK asks.
package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
)

const nobody = "012222222222222222222222"

func paging() {
	test("paging/sessions", func() {
		var made []string
		for range 5 {
			s, f := open(clerk.ID, "")
			f.close()
			made = append(made, s.ID)
		}
		slices.Reverse(made)
		all := sessions(anthropic.BetaSessionListParams{Limit: anthropic.Int(2)})
		same(all[:5], made, "newest first")
		slices.Reverse(made)
		upwards := sessions(anthropic.BetaSessionListParams{Limit: anthropic.Int(3), Order: "asc"})
		same(upwards[len(upwards)-5:], made)
		page := must(beta.Sessions.List(ctx, anthropic.BetaSessionListParams{Limit: anthropic.Int(2)}))
		next := must(page.GetNextPage())
		same([]any{page.PrevPage, next.Data[0].ID}, []any{"", all[2]})
		back := must(beta.Sessions.List(ctx, anthropic.BetaSessionListParams{Limit: anthropic.Int(2), Page: anthropic.String(next.PrevPage)}))
		same(back.Data[0].ID, all[0])
	})
}

func mistakes() {
	test("errors/status-type-code-request-id", func() {
		gone := refused(404, "not_found_error", second(beta.Agents.Get(ctx, "agent_"+nobody, anthropic.BetaAgentGetParams{})))
		same(codeOf(gone), "")
		refused(400, "invalid_request_error", second(beta.Agents.New(ctx, params[anthropic.BetaAgentNewParams](`{"name":"","model":{"id":%q}}`, model))))
		refused(401, "authentication_error", second(beta.Agents.List(ctx, anthropic.BetaAgentListParams{}, option.WithAPIKey("sk-mr-wrong"))))
		e := refused(400, "invalid_request_error", second(beta.Sessions.Events.Send(ctx, emptySession(),
			params[anthropic.BetaSessionEventSendParams](`{"events":[%s,{"type":"user.message"}]}`, message("fine")))))
		check(strings.Contains(e.Error(), "events[1]"), "%s", e.Error())
		f := beta.Sessions.Events.StreamEvents(ctx, "sesn_"+nobody, anthropic.BetaSessionEventStreamParams{})
		refused(404, "not_found_error", f.Err())
		changed := params[anthropic.BetaEnvironmentUpdateParams](`{"config":{"type":"self_hosted"}}`)
		coded := refused(400, "invalid_request_error", second(beta.Environments.Update(ctx, environment.ID, changed)))
		same(codeOf(coded), "invalid_config_type_change")
	})
	test("errors/conflict-is-not-tried-again", func() {
		a := newAgent(`{"name":"conflict","model":{"id":%q}}`, model)
		update := params[anthropic.BetaAgentUpdateParams](`{"version":1,"name":"two"}`)
		must(beta.Agents.Update(ctx, a.ID, update))
		n := 0
		count := option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
			n++
			return next(r)
		})
		other := params[anthropic.BetaAgentUpdateParams](`{"version":1,"name":"three"}`)
		e := refused(409, "conflict_error", second(beta.Agents.Update(ctx, a.ID, other, count)))
		same([]any{n, e.Response.Header.Get("x-should-retry")}, []any{1, "false"})
	})
}

func emptySession() string {
	s, f := open(clerk.ID, "")
	f.close()
	return s.ID
}

// rawIDs is the id: lines of the next n frames of a stream, and the ids of their events.
func rawIDs(r *bufio.Reader, n int) (lines, events []string) {
	for len(events) < n {
		line, err := r.ReadString('\n')
		check(err == nil, "%v", err)
		if v, ok := strings.CutPrefix(line, "id: "); ok {
			lines = append(lines, strings.TrimSpace(v))
		} else if v, ok := strings.CutPrefix(line, "data: "); ok {
			var e event
			check(json.Unmarshal([]byte(v), &e) == nil, "%s", v)
			if e.ID != "" {
				events = append(events, e.ID)
			}
		}
	}
	return lines, events
}

func resumes() {
	test("stream/last-event-id", func() {
		s, f := open(clerk.ID, "")
		request, _ := http.NewRequestWithContext(ctx, "GET", url+"/v1/sessions/"+s.ID+"/events/stream?beta=true", nil)
		for k, v := range map[string]string{"x-api-key": key, "anthropic-version": "2023-06-01", "anthropic-beta": "managed-agents-2026-04-01"} {
			request.Header.Set(k, v)
		}
		answer, err := http.DefaultClient.Do(request)
		check(err == nil && answer.StatusCode == 200, "%v", err)
		defer answer.Body.Close()
		send(s.ID, message("[[say One.]]"))
		first := f.idle(0, "end_turn")
		numbers, seen := rawIDs(bufio.NewReader(answer.Body), len(first))
		same(seen, ids(first))
		same(len(numbers), len(seen), "each frame has a place")
		again := follow(beta.Sessions.Events.StreamEvents(ctx, s.ID, anthropic.BetaSessionEventStreamParams{}, option.WithHeader("Last-Event-ID", numbers[3])))
		again.until(func(all []event) bool { return len(all) >= len(first)-4 }, "what was missed")
		send(s.ID, message("[[say Two.]]"))
		both := append(slices.Clone(ids(first)), ids(f.idle(len(first), "end_turn"))...)
		again.until(func(all []event) bool { return len(all) >= len(both)-4 }, "what comes")
		same(ids(again.events), both[4:])
		again.close()
		f.close()
	})
	test("old-clients/this-one-as-it-authenticates-and-asks", func() {
		var seen *http.Request
		look := option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
			seen = r
			return next(r)
		})
		must(beta.Sessions.Get(ctx, emptySession(), anthropic.BetaSessionGetParams{}, look))
		got := []any{seen.Header.Get("authorization"), seen.Header.Get("x-api-key"), seen.Header.Get("anthropic-version"), seen.URL.RawQuery}
		same(got, asItAsks)
	})
}
