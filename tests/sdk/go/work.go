// work.go - what runs longer: an outcome and its grader, a coordinator with two threads, a budget (API: sessions §11
// to §13, worked traces E and F). The models' parts are in the texts (tests/mock/messages.py).
package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anthropics/anthropic-sdk-go/v2"
)

func session(id string) *anthropic.BetaManagedAgentsSession {
	return must(beta.Sessions.Get(ctx, id, anthropic.BetaSessionGetParams{}))
}

func define(description, rubric string) string {
	return fmt.Sprintf(`{"type":"user.define_outcome","description":%s,"rubric":{"type":"text","content":%s}}`, quote(description), quote(rubric))
}

func grading() {
	test("outcome/two-iterations", func() {
		s, f := open(clerk.ID, "")
		nonce := strconv.FormatInt(time.Now().UnixNano(), 36) // the model server counts by the text
		verdicts := jsonOf(map[string]string{"result": "needs_revision", "explanation": "No sources. [[say Draft two.]]", "nonce": nonce}) +
			" | " + jsonOf(map[string]string{"result": "satisfied", "explanation": "Sources are named.", "nonce": nonce})
		defined := send(s.ID, define("[[say Draft one.]]", "Names its sources. [[verdict "+verdicts+"]]"))[0]
		check(defined.ProcessedAt != nil && strings.HasPrefix(defined.OutcomeID, "outc_"), "%v", defined)
		same(defined.MaxIterations, 3)
		got := slices.DeleteFunc(f.idle(0, "end_turn"), func(e event) bool { return e.Type == "span.outcome_evaluation_ongoing" })
		grade := []string{"span.outcome_evaluation_start", "span.outcome_evaluation_end"}
		same(types(got), lines([]string{"user.define_outcome"}, begin, turn, grade, turn, grade, triple))
		same(said(got), "[Draft one. Draft two.]")
		starts := of(got, grade[0])
		for i, e := range of(got, grade[1]) {
			same([]any{e.Iteration, e.EvaluationStart, e.OutcomeID, e.Usage.OutputTokens > 0}, []any{i, starts[i].ID, defined.OutcomeID, true})
			same(e.Result, []string{"needs_revision", "satisfied"}[i])
		}
		outcome := session(s.ID).OutcomeEvaluations[0]
		same([]any{outcome.OutcomeID, outcome.Result, outcome.Iteration, outcome.CompletedAt.IsZero()}, []any{defined.OutcomeID, "satisfied", 1, false})
		f.close()
	})
	test("outcome/interrupted", func() {
		s, f := open(clerk.ID, "")
		outcome := define("[[long 4000]] [[slow 20 ms]]", "Is long.")
		send(s.ID, outcome)
		f.until(func(all []event) bool { return len(of(all, "span.model_request_start")) > 0 }, "the model to be asked")
		refused(400, "invalid_request_error", second(trySend(s.ID, outcome)))
		send(s.ID, `{"type":"user.interrupt"}`)
		end := one(f.idle(0, "end_turn"), "span.outcome_evaluation_end")
		same([]any{end.Result, end.EvaluationStart}, []any{"interrupted", ""})
		same(session(s.ID).OutcomeEvaluations[0].Result, "interrupted")
		f.close()
	})
}

func team() *anthropic.BetaManagedAgentsAgent {
	reviewer := newAgent(`{"name":"reviewer","model":{"id":%q}}`, model)
	tester := newAgent(`{"name":"tester","model":{"id":%q},"tools":[%s]}`, model, ask)
	lead := newAgent(`{"name":"lead","model":{"id":%q},"multiagent":{"type":"coordinator","agents":[%q,{"type":"agent","id":%q}]}}`, model, reviewer.ID, tester.ID)
	deeper := params[anthropic.BetaAgentNewParams](`{"name":"deeper","model":{"id":%q},"multiagent":{"type":"coordinator","agents":[%q]}}`, model, lead.ID)
	refused(400, "invalid_request_error", second(beta.Agents.New(ctx, deeper)))
	return lead
}

func delegate() string {
	call := func(agent, prompt string) string {
		return "create_agent " + jsonOf(map[string]string{"agent": agent, "prompt": prompt})
	}
	return "[[tools " + call("reviewer", "[[say 1 issue at line 42.]]") + " | " +
		call("tester", `[[tool bash {"command":"make test"}]] ;; [[say 12 tests pass.]]`) + "]] ;; [[say Delegated.]]"
}

func threadStates(id string, limit int64) (ids, states []string) {
	p := anthropic.BetaSessionThreadListParams{}
	if limit > 0 {
		p.Limit = anthropic.Int(limit)
	}
	pages := beta.Sessions.Threads.ListAutoPaging(ctx, id, p)
	for pages.Next() {
		t := must(pages.Current(), nil)
		ids, states = append(ids, t.ID), append(states, string(t.Status))
	}
	check(pages.Err() == nil, "%v", pages.Err())
	return ids, states
}

func coordinators() {
	test("coordinator/two-threads-and-a-cross-posted-confirmation", func() {
		s, f := open(team().ID, "")
		send(s.ID, message(delegate()))
		first := f.idle(0, "requires_action")
		created := map[string]string{}
		for _, e := range of(first, "session.thread_created") {
			created[e.AgentName] = e.SessionThreadID
		}
		same(len(created), 2)
		for _, e := range of(first, "agent.thread_message_sent") {
			same(created[e.ToAgentName], e.ToSessionThreadID)
		}
		same(one(first, "agent.thread_message_received").Content[0].Text, "1 issue at line 42.")
		use := one(first, "agent.tool_use")
		same([]any{use.SessionThreadID, use.EvaluatedPermission}, []any{created["tester"], "ask"})
		threads, _ := threadStates(s.ID, 0)
		same(threads[1:], []string{created["reviewer"], created["tester"]})
		paged, _ := threadStates(s.ID, 1)
		same(paged, threads)
		child := follow(beta.Sessions.Threads.Events.StreamEvents(ctx, created["tester"], anthropic.BetaSessionThreadEventStreamParams{SessionID: s.ID}))
		send(s.ID, confirm(use.ID, `"result":"allow"`))
		rest := f.idle(len(first), "end_turn")
		answer := one(rest, "user.tool_confirmation")
		same([]any{answer.SessionThreadID, answer.ToolUseID}, []any{created["tester"], use.ID})
		report := one(rest, "agent.thread_message_received")
		same([]any{report.FromSessionThreadID, report.FromAgentName, report.Content[0].Text}, []any{created["tester"], "tester", "12 tests pass."})
		same(len(of(rest, "agent.tool_result")), 0, "a child's results are its own")
		own := child.until(func(all []event) bool { return len(of(all, "session.thread_status_idle")) > 0 }, "the child to be idle")
		for _, kind := range []string{"user.tool_confirmation", "agent.tool_result", "span.model_request_end", "agent.thread_message_sent"} {
			check(len(of(own, kind)) > 0, "%s in %v", kind, types(own))
		}
		history := must(beta.Sessions.Threads.Events.List(ctx, created["tester"], anthropic.BetaSessionThreadEventListParams{SessionID: s.ID}))
		same(history.Data[0].Type, "agent.thread_message_received")
		done := must(beta.Sessions.Threads.Archive(ctx, created["reviewer"], anthropic.BetaSessionThreadArchiveParams{SessionID: s.ID}))
		same([]any{done.Status, done.ArchivedAt.IsZero()}, []any{"terminated", false})
		_, states := threadStates(s.ID, 0)
		same(states, []string{"idle", "terminated", "idle"})
		refused(400, "invalid_request_error", second(beta.Sessions.Threads.Archive(ctx, threads[0], anthropic.BetaSessionThreadArchiveParams{SessionID: s.ID})))
		child.close()
		f.close()
	})
}

func budget(cents int) string {
	return fmt.Sprintf(`"budget":{"type":"limit","max_list_cost":{"amount":"%d","currency":"USD"}}`, cents)
}

func budgets() {
	test("budget/pause-and-raise", func() {
		agent := newAgent(`{"name":"spender","model":{"id":%q},"tools":[{"type":"custom","name":"stock_level","description":"d","input_schema":{"type":"object"}}]}`, model)
		s, f := open(agent.ID, ","+budget(10))
		same(s.Budget.MaxListCost.Amount, "10")
		send(s.ID, message(`[[tool stock_level {"article":"nails"}]] [[usage in=1000 out=10000]] ;; [[say Done.]]`))
		paused := f.idle(0, "budget_reached")
		n := len(paused)
		same(types(paused)[n-3:], triple)
		same([]any{paused[n-3].StopReason.Type, len(of(paused, "span.model_request_start"))}, []any{"budget_reached", 1})
		same(paused[n-2].Budget.MaxListCost.Amount, "10")
		cost, err := strconv.Atoi(paused[n-2].Usage.ListCost.Amount)
		check(err == nil && cost >= 10, "%v", paused[n-2].Usage)
		refused(400, "invalid_request_error", second(trySend(s.ID, message("go on"))))
		update := func(json string) (*anthropic.BetaManagedAgentsSession, error) {
			return beta.Sessions.Update(ctx, s.ID, params[anthropic.BetaSessionUpdateParams](`{%s}`, json))
		}
		low := refused(400, "invalid_request_error", second(update(budget(cost-1))))
		check(strings.Contains(low.Error(), "budget.max_list_cost must be greater than the session's consumed list cost"), "%s", low.Error())
		must(update(budget(cost * 100)))
		rest := f.idle(n, "end_turn")
		same([]any{one(rest, "session.updated").Budget.MaxListCost.Amount, said(rest)}, []any{strconv.Itoa(cost * 100), "[Done.]"})
		f.close()
	})
}
