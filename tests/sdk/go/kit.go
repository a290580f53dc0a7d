// kit.go - a plain runner: test(name, fn) collects, run() runs in order and prints "ok NAME" or "not ok NAME" with
// details. A test fails by calling one of the checks below in its own goroutine, or by taking longer than its limit.
// Feed reads a stream in a goroutine of its own from the moment it is made; until() waits for what is to come.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"github.com/anthropics/anthropic-sdk-go/v2/packages/respjson"
	"github.com/anthropics/anthropic-sdk-go/v2/packages/ssestream"
)

const (
	limit = 60 * time.Second
	model = "claude-opus-4-7"
)

var (
	url, key = os.Getenv("SDK_URL"), os.Getenv("SDK_KEY")
	sandbox  = os.Getenv("SDK_SANDBOX") != ""
	ctx      context.Context // of the running test; over when its time is
	client   = anthropic.NewClient(option.WithBaseURL(url), option.WithAPIKey(key))
	beta     = &client.Beta
	begin    = []string{"session.status_running", "session.thread_status_running"}
	triple   = []string{"session.thread_status_idle", "session.usage", "session.status_idle"}
	turn     = []string{"span.model_request_start", "agent.message", "span.model_request_end"}
	tests    []struct {
		name string
		fn   func()
	}
)

func test(name string, fn func()) {
	tests = append(tests, struct {
		name string
		fn   func()
	}{name, fn})
}

// failure is what a check panics with.
type failure struct{ text string }

func fail(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

func check(ok bool, format string, args ...any) {
	if !ok {
		fail(format, args...)
	}
}

func same(got, want any, what ...any) {
	g, w := fmt.Sprintf("%v", got), fmt.Sprintf("%v", want)
	check(g == w, "%s\ngot:  %s\nwant: %s", fmt.Sprint(what...), g, w)
}

// must gives back a call's value, after a look at every field of it.
func must[T any](v T, err error) T {
	if err != nil {
		fail("%v", err)
	}
	fits(reflect.ValueOf(v), reflect.TypeOf(v).String())
	return v
}

// params reads a request's parameters from JSON, as the SDK lets its users do, and sees that none is lost.
func params[T any](format string, args ...any) T {
	var p T
	s := fmt.Sprintf(format, args...)
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		fail("%v in %s", err, s)
	}
	var in, out any
	_ = json.Unmarshal([]byte(s), &in)
	_ = json.Unmarshal([]byte(jsonOf(p)), &out)
	check(within(in, out), "the SDK lost something of %s: %s", s, jsonOf(p))
	return p
}

// within tells whether all that is in a is in b, too.
func within(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		m, ok := b.(map[string]any)
		for k, v := range a {
			ok = ok && within(v, m[k])
		}
		return ok
	case []any:
		l, ok := b.([]any)
		ok = ok && len(a) == len(l)
		for i := range a {
			ok = ok && within(a[i], l[i])
		}
		return ok
	}
	return reflect.DeepEqual(a, b)
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		fail("%v", err)
	}
	return string(b)
}

func quote(s string) string { return jsonOf(s) }

// fits fails where the SDK could not decode a field of an answer, or misses one that its types require.
func fits(v reflect.Value, at string) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			fits(v.Elem(), at)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fits(v.Index(i), fmt.Sprintf("%s[%d]", at, i))
		}
	case reflect.Struct:
		fitsStruct(v, at)
	}
}

func fitsStruct(v reflect.Value, at string) {
	if as := v.MethodByName("AsAny"); as.IsValid() {
		variant := as.Call(nil)[0]
		raw := v.MethodByName("RawJSON").Call(nil)[0].String()
		check(!variant.IsNil() || raw == "" || raw == "null", "%s: none of its variants: %s", at, raw)
		fits(variant, at)
		return
	}
	fields := v.FieldByName("JSON")
	if !fields.IsValid() || fields.Kind() != reflect.Struct || strings.Contains(v.Type().Name(), "Union") {
		return
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		meta := fields.FieldByName(f.Name)
		if f.Name == "JSON" || !f.IsExported() || !meta.IsValid() {
			continue
		}
		if m, ok := meta.Interface().(respjson.Field); ok {
			required := strings.Contains(f.Tag.Get("api"), "required")
			check(m.Valid() || m.Raw() == "null" || m.Raw() == "" && !required, "%s.%s: %q does not fit", at, f.Name, m.Raw())
			if m.Valid() {
				fits(v.Field(i), at+"."+f.Name)
			}
		}
	}
}

// refused is the error that a call has to end with, looked at as far as all errors are alike.
func refused(status int, kind string, err error) *anthropic.Error {
	var e *anthropic.Error
	check(errors.As(err, &e), "should have failed with %d; it gave %v", status, err)
	same(e.StatusCode, status, e.Error())
	var body struct {
		Type      string
		RequestID string `json:"request_id"`
		Error     struct{ Type, Message string }
	}
	check(json.Unmarshal([]byte(e.RawJSON()), &body) == nil, "no JSON: %s", e.RawJSON())
	same(body.Type, "error")
	same(string(e.Type()), kind)
	same(body.Error.Type, kind)
	check(strings.HasPrefix(e.RequestID, "req_") && e.RequestID == body.RequestID, "%s and %s", e.RequestID, body.RequestID)
	check(len(body.Error.Message) > 8, "%s", body.Error.Message)
	return e
}

func second[T any](_ T, err error) error { return err }

// event is an event of any of the SDK's unions, by the JSON that it kept.
type event struct {
	ID, Type, Name, Text, Result, Explanation string
	SessionThreadID                           string  `json:"session_thread_id"`
	AgentName                                 string  `json:"agent_name"`
	ProcessedAt                               *string `json:"processed_at"`
	ToolUseID                                 string  `json:"tool_use_id"`
	EvaluatedPermission                       string  `json:"evaluated_permission"`
	IsError                                   bool    `json:"is_error"`
	FromSessionThreadID                       string  `json:"from_session_thread_id"`
	FromAgentName                             string  `json:"from_agent_name"`
	ToSessionThreadID                         string  `json:"to_session_thread_id"`
	ToAgentName                               string  `json:"to_agent_name"`
	OutcomeID                                 string  `json:"outcome_id"`
	Iteration                                 int
	MaxIterations                             int    `json:"max_iterations"`
	EvaluationStart                           string `json:"outcome_evaluation_start_id"`
	StopReason                                struct {
		Type     string
		EventIDs []string `json:"event_ids"`
	} `json:"stop_reason"`
	Content []struct{ Type, Text string }
	Usage   struct {
		OutputTokens int                     `json:"output_tokens"`
		ListCost     struct{ Amount string } `json:"list_cost"`
	}
	Budget struct {
		MaxListCost struct{ Amount string } `json:"max_list_cost"`
	}
}

type raw interface{ RawJSON() string }

func plain(e raw) (v event) {
	if err := json.Unmarshal([]byte(e.RawJSON()), &v); err != nil {
		fail("%v in %s", err, e.RawJSON())
	}
	return v
}

func types(all []event) (t []string) {
	for _, e := range all {
		t = append(t, e.Type)
	}
	return t
}

func ids(all []event) (t []string) {
	for _, e := range all {
		t = append(t, e.ID)
	}
	return t
}

func of(all []event, kind string) (found []event) {
	for _, e := range all {
		if e.Type == kind {
			found = append(found, e)
		}
	}
	return found
}

func one(all []event, kind string) event {
	found := of(all, kind)
	check(len(found) == 1, "%d of %s in %v", len(found), kind, types(all))
	return found[0]
}

func said(all []event) (t []string) {
	for _, e := range of(all, "agent.message") {
		for _, b := range e.Content {
			t = append(t, b.Text)
		}
	}
	return t
}

func lines(parts ...[]string) []string { return slices.Concat(parts...) }

// feed is a stream, read along: the events of it until now, and what the SDK made of them.
type feed[T raw] struct {
	stream *ssestream.Stream[T]
	news   chan T
	typed  []T
	events []event
	err    error
	ended  bool
}

func follow[T raw](stream *ssestream.Stream[T]) *feed[T] {
	check(stream.Err() == nil, "%v", stream.Err())
	f := &feed[T]{stream: stream, news: make(chan T, 4096)}
	go func() {
		for stream.Next() {
			f.news <- stream.Current()
		}
		f.err = stream.Err()
		close(f.news)
	}()
	return f
}

func (f *feed[T]) until(done func([]event) bool, what string) []event {
	for !done(f.events) && !f.ended {
		select {
		case e, ok := <-f.news:
			if !ok {
				f.ended = true
				break
			}
			fits(reflect.ValueOf(e), "event")
			f.typed, f.events = append(f.typed, e), append(f.events, plain(e))
		case <-ctx.Done():
			fail("in vain before %s: %v", what, types(f.events))
		}
	}
	check(done(f.events), "the stream ended before %s: %v %v", what, f.err, types(f.events))
	return f.events
}

// idle is the events from `from` to the first idle of the session with this reason.
func (f *feed[T]) idle(from int, reason string) []event {
	at := func(all []event) int {
		return slices.IndexFunc(all[min(from, len(all)):], func(e event) bool {
			return e.Type == "session.status_idle" && e.StopReason.Type == reason
		})
	}
	all := f.until(func(all []event) bool { return at(all) >= 0 }, "session.status_idle "+reason)
	return all[from : from+at(all)+1]
}

// end is all events of a stream that the server ends.
func (f *feed[T]) end() []event {
	f.until(func([]event) bool { return f.ended }, "the end")
	check(f.err == nil, "%v", f.err)
	return f.events
}

func (f *feed[T]) close() { f.stream.Close() }

func run(only []string) (failed int) {
	for _, t := range tests {
		if len(only) > 0 && !slices.ContainsFunc(only, func(o string) bool { return strings.HasPrefix(t.name, o) }) {
			continue
		}
		over := make(chan string, 1)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.Background(), limit)
		go func() {
			defer func() {
				switch r := recover().(type) {
				case nil:
					over <- ""
				case failure:
					over <- r.text
				default:
					over <- fmt.Sprintf("panic: %v", r)
				}
			}()
			t.fn()
		}()
		why := ""
		select {
		case why = <-over:
		case <-time.After(limit + 5*time.Second):
			why = "over the limit"
		}
		cancel()
		if why == "" {
			fmt.Println("ok " + t.name)
			continue
		}
		failed++
		fmt.Printf("not ok %s\n  %s\n", t.name, strings.ReplaceAll(why, "\n", "\n  "))
	}
	return failed
}
