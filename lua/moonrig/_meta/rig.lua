---@meta moonrig
-- Types of everything public for editors. Made by scripts/dev/gen_meta from the annotations in lua/moonrig.

---@class moonrig
---@field session fun(o: moonrig.SessionOptions|string): moonrig.Session?, moonrig.Error? makes one, or finds it by its id
---@field import fun(what: string|{ bytes: string }, o?: moonrig.CopyOptions): moonrig.Session?, moonrig.Error? of a file that session:export made
---@field agent fun(o: moonrig.AgentOptions|string): moonrig.Agent?, moonrig.Error? declares an agent, or finds one
---@field environment fun(o: moonrig.EnvironmentOptions|string): moonrig.Environment?, moonrig.Error? likewise
---@field sleep fun(seconds: number) waits; other tasks run meanwhile
---@field now fun(): number seconds since 1970
---@field int fun(text: string): any a whole number of up to 64 bits, exact on LuaJIT too
---@field null moonrig.Null
---@field env table<string, string?> environment variables, read-only
---@field cjson? table lua-cjson, where it is installed
local rig = {}

---Runs the functions at the same time; their first results, in order (or by key). As rig.map.
---@param fns table
---@param options? moonrig.MapOptions
---@return table? results
---@return any err with on_error = "collect" a table of the errors by key, if there are any
function rig.all(fns, options) end

---Marks a table as an array, so that an empty one is written as [].
---@param t? table
---@return table
function rig.array(t) end

---A check of the scripts by themselves: run after all files are loaded and valid, before they become current.
---It cannot wait. If it raises, or returns false (or nil, why), the generation is refused, and the one that runs
---stays.
---@param fn fun(): boolean?, string?
function rig.check(fn) end

---A client of another runtime, of the same shape as rig. Does not ask it anything yet.
---@param o? moonrig.ConnectOptions
---@return moonrig.Client client
function rig.connect(o) end

---What agents get that leave it out; once in all scripts.
---@param o moonrig.Defaults
function rig.defaults(o) end

---An error as functions give it back: return nil, rig.error("not_found_error", "no such order").
---@param type string
---@param message string
---@param more? table other fields
---@return moonrig.Error
function rig.error(type, message, more) end

---The bytes of a file; a relative path is relative to the script that calls. For prompts and the like, at
---top level too.
---@param path string
---@return string
function rig.file(path) end

---The number of the scripts' generation that the caller runs on.
---@return integer
function rig.generation() end

---What `moonrig reload --status` shows.
---@return moonrig.Generations
function rig.generations() end

---Declares a hook. What run(call, ctx) returns, by phase (nothing: no opinion, the next hook is asked):
---
---accept: a list of events instead of call.events. context: a list of messages, or { messages =, system = }.
---model: a model's name, or { reply = text or blocks }. permit: "allow"; "ask", why; "deny", why; "rewrite",
---input: the first decision wins. tools: another result, as a tool returns it: a value, or nil, err. settle: a text
---that the turn goes on with. idle: nothing. In all but permit and idle false, why refuses: the events get 403, the
---request fails, the result is withheld, the turn ends.
---@param o moonrig.HookOptions
---@return moonrig.HookOptions
function rig.hook(o) end

---Gives the script's own work: run by `moonrig run`, as a task; ignored by `serve`. An integer result is
---the exit code; nil, err is a failure.
---@param fn fun(args: string[]): integer?, any
function rig.main(fn) end

---Runs fn on each item, at most `concurrency` at the same time. fn(item, index) returns a value, or
---nil, err. Results come in the order of the list.
---The first nil, err ends the whole as nil, err, the others are cancelled; with on_error = "collect" all
---run, and the second result is a table of the errors by index. A raise in fn is raised here.
---@generic T, R
---@param list T[]
---@param fn fun(item: T, index: integer): R?, moonrig.Error?
---@param options? moonrig.MapOptions
---@return R[]?, table?
function rig.map(list, fn, options) end

---Another runtime in this process, as rig.connect gives one elsewhere: it runs no scripts, and knows nothing of this
---one's store. Waits until it is open. client:close() ends it; so do its collection and the end of the scripts.
---@param o? moonrig.NewOptions
---@return moonrig.Client? client
---@return moonrig.Error? err
function rig.new(o) end

---Declares a watcher.
---@param o moonrig.OnOptions
function rig.on(o) end

---Declares a model provider: run(request, ctx) answers for these model ids.
---request: { model, system, messages, tools } as in the Messages API. It returns text, a list of content
---blocks, or { content, stop_reason, usage }; or nil, err.
---@param o moonrig.ProviderOptions
function rig.provider(o) end

---Runs the functions at the same time; the first that returns wins: its key, then its results. The others
---are cancelled. A raise of the first is raised here.
---@param fns table
---@return any key
---@return any ...
function rig.race(fns) end

---Loads the scripts again, or goes back to the generation before; returns the number of the one that is current
---then. The caller goes on on its own generation, whatever comes.
---@param o? { rollback: boolean? }
---@return integer? generation
---@return moonrig.Error? err why it was refused; nothing has changed
function rig.reload(o) end

---Declares a path. run(req, res) returns the answer: text; a table (JSON); status, body, headers; nothing (204); or
---nil, err (its status, or 500). Or it streams with res:start, res:write, res:event. An error is a 500, and goes to the
---log. The task is cancelled when the client goes away.
---@param o moonrig.RouteOptions
---@return moonrig.Route
function rig.route(o) end

---Declares a schedule: either every or cron.
---@param o moonrig.ScheduleOptions
function rig.schedule(o) end

---Starts fn(...) as a task of its own.
---@param fn function
---@param ... any its arguments
---@return moonrig.Task
function rig.spawn(fn, ...) end

---A value that survives reloads. The generation that runs hands its value on: in the same version it is that very
---value; in another, init gets a copy of it and makes the new one, and older calls keep theirs. If the new
---generation is refused, what its loading did to the value is undone.
---@param o moonrig.StateOptions
---@return table value
function rig.state(o) end

---Declares a tool, or (with a name) finds one that is declared.
---@param o moonrig.ToolOptions|string
---@param ... nil only one argument: a second one is refused
---@return moonrig.Tool?, moonrig.Error?
function rig.tool(o, ...) end

---The built-in toolset as an entry of an agent's tools.
---rig.toolset() all of it; rig.toolset{ "read", "bash" } only these; ask = { "bash" } asks before these,
---off = { "web_search" } leaves these out.
---@param o? moonrig.ToolsetOptions
---@return table
function rig.toolset(o) end

---@class moonrig.crypto
rig.crypto = {}

---Are two strings equal? The time it takes depends on their lengths alone, so that a secret cannot be guessed
---byte by byte.
---@param a string
---@param b string
---@return boolean
function rig.crypto.equal(a, b) end

---The keyed digest of s, as hex digits.
---@param name "sha256"|"sha512"|"sha1"|"md5"|"blake2b512"
---@param key string
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function rig.crypto.hmac(name, key, s, o) end

---MD5 as hex digits in lower case; for checksums that others chose, never for secrets.
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function rig.crypto.md5(s, o) end

---n random bytes (at most 1 MiB) from the system.
---@param n integer
---@return string
function rig.crypto.random(n) end

---SHA-1 as hex digits in lower case; for what still asks for it, no more safe against forgery.
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function rig.crypto.sha1(s, o) end

---SHA-256 as hex digits in lower case.
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function rig.crypto.sha256(s, o) end

---SHA-512 as hex digits in lower case.
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function rig.crypto.sha512(s, o) end

---A random UUID (version 4): "f81d4fae-7dec-41d0-a765-00a0c91e6bf6".
---@return string
function rig.crypto.uuid() end

rig.crypto.base64 = {}

---Reads both alphabets, with or without padding; nothing else, no line breaks.
---@param s string
---@return string? bytes
---@return moonrig.Error? err
function rig.crypto.base64.decode(s) end

---Base64.
---@param s string
---@param o? { url?: boolean } url: the alphabet of URLs, without padding
---@return string
function rig.crypto.base64.encode(s, o) end

rig.crypto.hex = {}

---The bytes that hex digits stand for.
---@param s string
---@return string? bytes
---@return moonrig.Error? err
function rig.crypto.hex.decode(s) end

---Hex digits in lower case.
---@param s string
---@return string
function rig.crypto.hex.encode(s) end

---@class moonrig.fs
rig.fs = {}

---Adds to the end of a file; one that is not there is made.
---@param path string
---@param bytes string
---@return boolean? ok
---@return moonrig.Error? err
function rig.fs.append(path, bytes) end

---Iterates over the lines of a file, without their ends. Raises if it cannot be read.
---@param path string
---@return fun(): string?
function rig.fs.lines(path) end

---What a directory holds, by name.
---@param path string
---@return moonrig.FileInfo[]? list
---@return moonrig.Error? err
function rig.fs.list(path) end

---Makes a directory, its parents too; one that is there already is fine.
---@param path string
---@return boolean? ok
---@return moonrig.Error? err
function rig.fs.mkdir(path) end

---The whole file.
---@param path string
---@return string? bytes
---@return moonrig.Error? err
function rig.fs.read(path) end

---Removes a file or an empty directory.
---@param path string
---@return boolean? ok
---@return moonrig.Error? err
function rig.fs.remove(path) end

---Gives a file another name; one that has it already is replaced.
---@param from string
---@param to string
---@return boolean? ok
---@return moonrig.Error? err
function rig.fs.rename(from, to) end

---What is at a path; of a link, what it leads to.
---@param path string
---@return moonrig.FileInfo? info
---@return moonrig.Error? err
function rig.fs.stat(path) end

---Replaces the file in one step (a reader sees the old or the new one).
---@param path string
---@param bytes string
---@return boolean? ok
---@return moonrig.Error? err
function rig.fs.write(path, bytes) end

---@class moonrig.http
---@field get fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field post fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field put fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field patch fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field delete fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field head fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
rig.http = {}

---Sends a request, and waits for the whole response.
---@param o moonrig.HttpOptions with url, and method (default GET)
---@return moonrig.Response? response
---@return moonrig.Error? err
function rig.http.request(o) end

---Sends a request and returns when the head of the response is there: status, headers, and :read(), :chunks(),
---:lines(), :events(), :all(), :close(). Without `timeout` it may last for ever, but not 60 seconds (`idle_timeout`)
---without a byte.
---@param target string|moonrig.HttpOptions
---@param options? moonrig.HttpOptions
---@return moonrig.StreamedResponse? response
---@return moonrig.Error? err
function rig.http.stream(target, options) end

---@class moonrig.json
---@field null moonrig.Null
rig.json = {}

---Marks a table as an array, so that an empty one is written as [].
---@param t? table
---@return table
function rig.json.array(t) end

---The value of a JSON text.
---@param text string
---@return any value
---@return moonrig.Error? err with the byte where it broke
function rig.json.decode(text) end

---The value as JSON text.
---@param value any
---@param options? { pretty?: boolean }
---@return string? text
---@return moonrig.Error? err bad UTF-8, NaN; a value with no JSON form raises
function rig.json.encode(value, options) end

---@class moonrig.kv
rig.kv = {}

---Removes a key; one that is not there is fine.
---@param key string
---@return boolean? ok
---@return moonrig.Error? err
function rig.kv.delete(key) end

---Iterates over key, value of all keys that begin with prefix; raises when they cannot be read.
---@param prefix? string
---@return fun(): string?, any
function rig.kv.each(prefix) end

---The value of a key; nil when there is none.
---@param key string 1 to 512 bytes
---@return any value
---@return moonrig.Error? err
function rig.kv.get(key) end

---Adds to a number; a key that is not there counts as 0.
---@param key string
---@param by? number default 1
---@return number? value the sum
---@return moonrig.Error? err
function rig.kv.incr(key, by) end

---A page of the keys that begin with prefix, in the order of their bytes.
---@param prefix? string "" for all
---@param options? { limit: integer?, after: string? } limit: 1 to 1,000, default 100; after: keys past this one
---@return { key: string, value: any }[]? list
---@return boolean|moonrig.Error more are there others after these? (nil, err: it failed)
function rig.kv.list(prefix, options) end

---Keeps a value (at most 1 MiB as JSON).
---@param key string
---@param value any
---@param options? moonrig.KvOptions
---@return boolean? ok
---@return moonrig.Error? err
function rig.kv.set(key, value, options) end

---Changes a value by what fn makes of it; nobody else's change is lost. fn(old) returns the new value, nil to
---leave it as it is, or nil, err; it is called again when somebody else was faster. A key keeps its time to live,
---unless options.ttl says otherwise.
---@param key string
---@param fn fun(old: any): any, any
---@param options? { ttl: number? }
---@return any value what the key holds now
---@return moonrig.Error? err
function rig.kv.update(key, fn, options) end

---@class moonrig.log
---@overload fun(...: any)
---@field error fun(...: any)
---@field warn fun(...: any)
---@field info fun(...: any)
---@field debug fun(...: any)
rig.log = {}

---@class moonrig.sqlite
rig.sqlite = {}

---Bytes that are stored as a blob even if they are UTF-8. (Text that is not is a blob by itself.)
---@param bytes string
---@return table
function rig.sqlite.blob(bytes) end

---Opens a file, which is made if it is not there; ":memory:" is a database of its own. It is closed by close(),
---when nothing refers to it any more (with its generation, when a script's local does), and at the end.
---@param path string
---@param o? { readonly?: boolean }
---@return moonrig.Sqlite? db
---@return moonrig.Error? err
function rig.sqlite.open(path, o) end

---@class moonrig.task
---@field sleep fun(seconds: number) waits; other tasks run meanwhile
---@field cancelled fun(): boolean has the running task been cancelled? Its next wait raises then
rig.task = {}

---Runs the functions at the same time; their first results, in order (or by key). As rig.map.
---@param fns table
---@param options? moonrig.MapOptions
---@return table? results
---@return any err with on_error = "collect" a table of the errors by key, if there are any
function rig.task.all(fns, options) end

---Waits for the end of a task, or of each of a list of tasks: their first results, in order. Raises what
---the first of them raised.
---@param task moonrig.Task|moonrig.Task[]
---@return any ... of a list: a list
function rig.task.join(task) end

---Runs fn on each item, at most `concurrency` at the same time. fn(item, index) returns a value, or
---nil, err. Results come in the order of the list.
---The first nil, err ends the whole as nil, err, the others are cancelled; with on_error = "collect" all
---run, and the second result is a table of the errors by index. A raise in fn is raised here.
---@generic T, R
---@param list T[]
---@param fn fun(item: T, index: integer): R?, moonrig.Error?
---@param options? moonrig.MapOptions
---@return R[]?, table?
function rig.task.map(list, fn, options) end

---Runs the functions at the same time; the first that returns wins: its key, then its results. The others
---are cancelled. A raise of the first is raised here.
---@param fns table
---@return any key
---@return any ...
function rig.task.race(fns) end

---Starts fn(...) as a task of its own.
---@param fn function
---@param ... any its arguments
---@return moonrig.Task
function rig.task.spawn(fn, ...) end

---@class moonrig.time
---@field now fun(): number seconds since 1970
---@field mono fun(): number seconds of a clock that nobody sets, for measuring
rig.time = {}

---"2026-01-31T12:00:00.250000Z"
---@param seconds number
---@return string
function rig.time.format(seconds) end

---Seconds since 1970 of an RFC 3339 time.
---@param text string
---@return number?
---@return moonrig.Error?
function rig.time.parse(text) end

---@class moonrig.url
rig.url = {}

---A date as HTTP headers have it ("Sun, 06 Nov 1994 08:49:37 GMT") to seconds since 1970; nil for other text.
---@param s string
---@return integer?
function rig.url.date(s) end

---Percent-encodes what is not a letter, a digit, or one of - . _ ~
---@param s string|number
---@return string
function rig.url.escape(s) end

---As a form sends it: spaces as "+".
---@param t table
---@return string
function rig.url.form(t) end

---{ q = "a b", n = { 1, 2 } } to "n=1&n=2&q=a%20b"; keys sorted.
---@param t table
---@return string
function rig.url.query(t) end

---Undoes percent-encoding; "+" is a space.
---@param s string
---@return string
function rig.url.unescape(s) end

---@class moonrig.Agent a handle: goes where an agent or its id goes
---@field name string
---@field id? string    once it is upserted

---@class moonrig.AgentOptions fields of the API; what is left out is cleared
---@field name string      1 to 256 characters
---@field model? string|table  a name, or { id =, ... }; default that of rig.defaults
---@field description? string
---@field system? string
---@field tools? (moonrig.Tool|table|string)[] handles, rig.toolset(), names of tools of these scripts, wire objects
---@field mcp_servers? table[]
---@field skills? table[]
---@field agents? (moonrig.Agent|string|table)[] whom it may delegate to: handles, names of agents of these scripts, ids, "self"
---@field advisor? string    a model that it may ask for advice
---@field multiagent? table  those two in the API's own form
---@field execution_identity? table
---@field metadata? table<string, string>

---@class moonrig.Client: moonrig without what is for a runtime's own scripts: declarations, kv, reload, main
---@field close fun(): boolean?, moonrig.Error? ends a runtime of rig.new; of rig.connect nothing is left to do

---@class moonrig.ConnectOptions
---@field base_url? string  "http://host:port", "https://..." or "unix:/path"; default MOONRIG_URL
---@field api_key? string   default MOONRIG_API_KEY
---@field timeout? number   seconds a call may take, with its retries; default 60

---@class moonrig.CopyOptions
---@field title? string
---@field metadata? table<string, string> of a fork
---@field environment? moonrig.Environment|string handle, name or id
---@field workspace? boolean of a fork: false leaves the files of the sandbox out
---@field timeout? number seconds

---@class moonrig.Defaults
---@field model? string|table for agents that are declared without one

---@class moonrig.DigestOptions
---@field raw? boolean the bytes instead of hex digits

---@class moonrig.Environment a handle
---@field name string
---@field id? string

---@class moonrig.EnvironmentOptions
---@field name string
---@field description? string
---@field config? table
---@field scope? string
---@field metadata? table<string, string>

---@class moonrig.Error
---@field type string       machine-readable: "not_found_error", "timeout_error", ...
---@field message string    a sentence for people
---@field status? integer   HTTP status, where there was one
---@field field? string     the offending input field
---@field request_id? string
---@field retryable boolean trying again later may help

---@class moonrig.FileInfo
---@field name string
---@field type "file"|"directory"|"link"|"other"
---@field size integer
---@field mtime number seconds since 1970

---@class moonrig.Generations
---@field generation integer     the current one; new calls run on it
---@field previous? integer      what a rollback goes to
---@field files integer
---@field error? string          of the last attempt
---@field error_at? number       seconds since 1970
---@field history moonrig.Attempt[] the last eight, latest first
---@field live moonrig.GenerationInfo[] those that still have calls, the current and the previous one
---@field tasks integer
---@field memory_bytes integer

---@class moonrig.HookOptions
---@field phase "accept"|"context"|"model"|"permit"|"tools"|"settle"|"idle"
---@field name? string  for the log
---@field agent? string|moonrig.Agent only this agent (name or id)
---@field tool? string  only this tool; phases permit and tools
---@field fail? "closed"|"open" when run fails or is late: refuse, or as if the hook were not there (default)
---@field run fun(call: moonrig.HookCall, ctx: moonrig.HookContext): any, any

---@class moonrig.HttpOptions
---@field method? string
---@field url? string            "http://..." or "https://..."
---@field query? table           added to the url
---@field headers? table<string, string>
---@field body? string
---@field json? any              encoded as the body, with its content-type
---@field form? table            as application/x-www-form-urlencoded: { name = value | { values } }
---@field multipart? table       multipart/form-data: { name = value | { bytes = | path =, filename =, media_type = } }
---@field auth? table            { user, password } or { bearer = token }
---@field unix? string           path of a socket to connect to instead of the url's host
---@field timeout? number        seconds for the whole request; default 60, rig.http.stream: none
---@field connect_timeout? number seconds until connected; default 10
---@field idle_timeout? number   seconds without a byte; default none, rig.http.stream: 60
---@field head_timeout? number   rig.http.stream: seconds until the head of the response is there
---@field retry? integer         how often to try again after no answer, 408, 429 or 5xx; default 0
---@field expect? integer|integer[] statuses that are a result; any other is nil, err
---@field max_body? integer      bytes kept of the response; default 16 MiB, rig.http.stream: no limit
---@field follow? integer        redirects to follow; default 0
---@field guard? boolean         dial only public addresses and those of allow_private_hosts, else nil, err; default false

---@class moonrig.KvOptions
---@field ttl? number        seconds until it is gone; default: never
---@field if_absent? boolean only when there is none: else nil, err with err.status 409

---@class moonrig.MapOptions
---@field concurrency? integer how many at the same time; default 8, rig.all: all
---@field on_error? "collect"  all run; the second result is a table of the errors by index

---@class moonrig.NewOptions
---@field store? string   ":memory:" (default), or a data directory that no other runtime has open
---@field options? table  what the configuration file may hold: models, limits, ...
---@field timeout? number seconds a call may take, with its retries; default 60

---@class moonrig.Null: userdata JSON's null; a value of its own, true in an if

---@class moonrig.OnOptions
---@field name string             1 to 128 bytes; the position is kept under it
---@field event string|string[]   event types
---@field agent? string           name or id
---@field durable? boolean        goes on after a restart where it was: each event at least once
---@field timeout? number         seconds for one event; default 60
---@field run fun(event: table, session: moonrig.Session)

---@class moonrig.Page
---@field data table[]
---@field next_page? string
local Page = {}

---Iterates over this page and those after it. Raises when a later page fails.
---@return fun(): moonrig.Page?
function Page:pages() end

---Iterates over the items of this page and those after it. Raises when a later page fails.
---@return fun(): table?
function Page:all() end

---@class moonrig.ProviderOptions
---@field name string
---@field models string|string[] names; "*" at the end of one stands for any rest
---@field run fun(request: table, ctx: moonrig.ModelContext): any, any

---@class moonrig.Response
---@field status integer
---@field headers table<string, string> names in lower case
---@field body string
local Response = {}

---The body as JSON.
---@return any value
---@return moonrig.Error? err
function Response:json() end

---@class moonrig.Route a handle
---@field method string
---@field path string

---@class moonrig.RouteOptions
---@field path string      "/x/name/{id}"; a last segment * stands for all the rest
---@field method? string   default "GET", which answers HEAD too; "*" for any
---@field public? boolean  no API key is asked for
---@field timeout? number  seconds until the answer begins, else 504; default 60
---@field body_max? integer bytes of a request's body, at most 64 MiB; default 1 MiB
---@field run fun(req: moonrig.Request, res: moonrig.RouteResponse): any, any, any

---@class moonrig.ScheduleOptions
---@field name string        1 to 128 bytes; its next time is kept under it
---@field every? number      seconds, at least 1
---@field cron? string       "minute hour day month weekday", in UTC, e.g. "*/5 * * * *"
---@field catch_up? boolean  run once, late, if times were missed while nothing ran; default false
---@field timeout? number    seconds for one run; default 3600
---@field run fun(at: number, ctx: moonrig.ScheduleContext)

---@class moonrig.Session has the fields of the API's object as they were when it was read (see refresh)
---@field id string
---@field status? string "idle", "running", "rescheduling", "terminated"
---@field title? string
---@field agent? table
---@field environment_id? string
---@field metadata? table<string, string>
---@field usage? table
---@field created_at? string
---@field [string] any
local Session = {}

---Sends text or content blocks and waits until the turn is over.
---@param content string|table
---@param o? { deltas?: boolean, on_event?: fun(ev: table), timeout?: number } on_event sees each event as it comes;
---timeout: seconds until nil, err (the turn itself goes on)
---@return moonrig.Turn?
---@return moonrig.Error?
function Session:ask(content, o) end

---Defines an outcome and waits until a grader has found it satisfied, or will look no more; without a description,
---waits for the newest that was defined. nil, err, turn when the turn stopped before that (requires_action,
---budget_reached, ...): turn.pending is to be answered, and turn:wait() goes on; turn.outcome has the result then.
---@param o? { description?: string, rubric?: string|table, max_iterations?: integer, deltas?: boolean, on_event?: fun(ev: table), timeout?: number }
---@return string? result "satisfied", "max_iterations_reached", "failed", "interrupted"
---@return string|moonrig.Error explanation
---@return moonrig.Turn?
function Session:outcome(o) end

---Sends text or content blocks; does not wait for the agent.
---@param content string|table
---@param o? { timeout?: number } seconds
---@return table? event as stored
---@return moonrig.Error?
function Session:send(content, o) end

---Iterates over events: history from the start (or after an event id), then live, with no gap, until the
---session ends. Raises when it cannot go on. timeout: seconds without an event until it raises a timeout_error; it can
---be called again after that.
---@param o? { after?: string, deltas?: boolean, live?: boolean, timeout?: number } live: from now on, no history
---@return moonrig.Follower
function Session:follow(o) end

---Stops what the agent does now.
---@param o? { timeout?: number } seconds
---@return table? event as stored
---@return moonrig.Error? err
function Session:interrupt(o) end

---Ends the session for good; its history stays.
---@param o? { timeout?: number } seconds
---@return table? session
---@return moonrig.Error? err
function Session:archive(o) end

---Reads the session again from the server; its fields are then up to date.
---@param o? { timeout?: number } seconds
---@return moonrig.Session?
---@return moonrig.Error?
function Session:refresh(o) end

---Changes it: title, metadata (as a patch), tools and servers of its agent (while it is idle), budget. A session that
---paused at its budget goes on by itself once that is higher; false removes it.
---@param o { title?: string, metadata?: table, agent?: table, budget?: moonrig.Budget|table|false, timeout?: number }
---@return moonrig.Session?
---@return moonrig.Error?
function Session:update(o) end

---Its threads, as handles: the primary first; of a coordinator those that it started behind it.
---@param o? { timeout?: number } seconds, for each page
---@return moonrig.Thread[]?
---@return moonrig.Error?
function Session:threads(o) end

---The session and all its events as one table, which `rig.json.encode` writes and `t.replay` reads; what
---`moonrig record` writes.
---@param o? { timeout?: number } seconds, for each page
---@return { session: table, events: table[] }?
---@return moonrig.Error?
function Session:transcript(o) end

---The session as one file, which rig.import reads, here or elsewhere: history, agent, input files, outputs, and the
---files of its sandbox, up to 320 MiB. It may run on meanwhile.
---@param o? { to?: string, workspace?: boolean, timeout?: number } to: a path; whole or not there. workspace: false leaves the sandbox's files out. timeout: seconds
---@return string|{ path: string, size: number }|nil bytes or, with `to`, where they are
---@return moonrig.Error?
function Session:export(o) end

---A new session whose history is this one's up to an event, or up to now. What was going on there is closed in it, its
---usage starts at zero, and its sandbox is a new one: with the files that are in this one's now, or, at an event, with
---none. Calls that wait for a client can be answered in both.
---@param event? string|table the last event of the fork: its id, or the event
---@param o? moonrig.CopyOptions
---@return moonrig.Session?
---@return moonrig.Error?
function Session:fork(event, o) end

---@class moonrig.SessionOptions
---@field agent moonrig.Agent|string|table handle, name, id or wire form
---@field environment? moonrig.Environment|string handle, name or id; default "default"
---@field environment_id? string
---@field title? string
---@field metadata? table<string, string>
---@field resources? (table|string)[] files as uploaded, ids of files, or wire form
---@field vault_ids? string[]
---@field budget? moonrig.Budget|table
---@field initial_events? (string|table)[] texts or wire events
---@field outcome? moonrig.OutcomeOptions behind the initial events; session:outcome() waits for it

---@class moonrig.Sqlite a database, or a transaction in it (which has no close and no transaction)
local Sqlite = {}

---Runs statements (several are fine) that give nothing back.
---@param sql string
---@param o? moonrig.SqliteOptions
---@return boolean? ok
---@return moonrig.Error? err
function Sqlite:exec(sql, o) end

---Runs one statement with parameters: a list for ? (rig.null for NULL), a table of names for :name. A single value
---stands for { value }.
---@param sql string
---@param params? table
---@param o? moonrig.SqliteOptions
---@return { changes: integer, last_id: integer }? done
---@return moonrig.Error? err err.type is "conflict_error" when a constraint failed
function Sqlite:run(sql, params, o) end

---All rows, as tables by column name (name columns with AS: of two that are called the same one is left). NULL is nil.
---@param sql string
---@param params? table
---@param o? moonrig.SqliteOptions
---@return table[]? rows
---@return moonrig.Error? err
function Sqlite:query(sql, params, o) end

---The first row; nil when there is none (then err is nil too).
---@param sql string
---@param params? table
---@param o? moonrig.SqliteOptions
---@return table? row
---@return moonrig.Error? err
function Sqlite:one(sql, params, o) end

---Iterates over the rows of a query. Raises when it fails.
---@param sql string
---@param params? table
---@param o? moonrig.SqliteOptions
---@return fun(): table?
function Sqlite:rows(sql, params, o) end

---Closes the file, after what was asked for; an open transaction is rolled back. Again is fine.
function Sqlite:close() end

---Runs fn(tx) as one transaction: tx has run, query, one, rows and exec. Other tasks' statements wait for its end.
---It is rolled back when fn raises or returns nil, err, and when its task is cancelled.
---@param fn fun(tx: moonrig.SqliteTransaction): any
---@return any ... what fn returned; true when that was nothing; nil, err
function Sqlite:transaction(fn) end

---@class moonrig.StateOptions
---@field name string
---@field version? integer  of the value's form; default 1
---@field init? fun(old: table?, old_version: integer?): table makes the first value, or one of this version from the old

---@class moonrig.Stream calling it gives the next event
---@overload fun(): table?
local Stream = {}

---Ends it; a task that waits for its next event gets nothing.
function Stream:close() end

---A response whose body comes piece by piece. A script that reads slowly slows the sender down; nothing is kept but
---a few hundred kilobytes. Closed at its end, by close(), or when it is collected.
---@class moonrig.StreamedResponse
---@field status integer
---@field headers table<string, string> names in lower case
local StreamedResponse = {}

---The next bytes of the body; nothing at its end; nil, err when it was cut.
---@return string? bytes
---@return moonrig.Error? err
function StreamedResponse:read() end

---Ends it; the transfer stops, a task that waits for it gets nothing.
function StreamedResponse:close() end

---Iterates over the body's pieces as they come. Raises when it is cut.
---@return fun(): string?
function StreamedResponse:chunks() end

---Iterates over lines, without their ends. Raises when the body is cut, or a line is longer than a megabyte.
---@return fun(): string?
function StreamedResponse:lines() end

---Iterates over server-sent events: { event = "message" | name, data = text, id = last id }. Raises when the body is
---cut; an event that the end cuts off is dropped.
---@return fun(): { event: string, data: string, id?: string }?
function StreamedResponse:events() end

---The rest of the body at once.
---@param max? integer bytes; default 16 MiB
---@return string? bytes
---@return moonrig.Error? err
function StreamedResponse:all(max) end

---@class moonrig.Task
---@field done boolean has it ended?
local Task = {}

---Waits for its end; returns what the function returned, raises what it raised.
---@return any ...
function Task:wait() end

---Stops it: what it waits for is undone, and it sees an error.
---@param why? string
function Task:cancel(why) end

---@class moonrig.Tool a handle: goes into an agent's tools
---@field name string

---@class moonrig.ToolOptions
---@field name string
---@field description string
---@field input_schema? table   JSON Schema of an object
---@field run fun(input: table, ctx: moonrig.ToolContext): any, any
---@field timeout? number       seconds; default 120
---@field concurrency? integer  calls at the same time, others wait in order; default 64
---@field agent? string         only for this agent (name or id)
---@field idempotent? boolean   may run again after a crash
---@field answered_by? "client" declared here, answered by an API client

---@class moonrig.ToolsetOptions
---@field [integer] string only these tools; without any: all
---@field ask? string[]    a call of these asks first
---@field allow? string[]  a call of these never asks
---@field off? string[]    not these

---@class moonrig.Attempt
---@field at number              seconds since 1970
---@field what "load"|"reload"|"rollback"
---@field generation integer     that was tried
---@field files integer
---@field took_ms number
---@field error? string          why it was refused

---@class moonrig.Budget what a session may use before it pauses; at least one of them
---@field usd? number      at list price
---@field tokens? integer
---@field seconds? integer in which anything of it runs
---@field steps? integer   model requests
---@field repeats? integer calls of one tool with one input in a row, in a thread

---@class moonrig.Follower calling it gives the next event; raises when it cannot go on
---@overload fun(): table?
local Follower = {}

---Stops following, and handlers of a client's tools that it started; one that was left alone is closed when it is
---collected.
function Follower:close() end

---@class moonrig.GenerationInfo
---@field number integer
---@field files integer          scripts and modules it has run
---@field running integer        tasks
---@field tasks table<string, integer> by kind: main, tool, hook, model, start (watchers too), spawn
---@field oldest_s? number       age of the oldest task

---What a hook is asked about. Tables in it may be changed and given back; what is not given back stays as it was.
---@class moonrig.HookCall
---@field session moonrig.Session
---@field session_id string
---@field agent string its name
---@field agent_id string
---@field events? table[]     accept: what a client sends
---@field messages? table[]   context: { role, content } of this model request
---@field system? table[]     context: text blocks
---@field model? string       model: the agent's
---@field effort? string      model: "" when the agent names none
---@field bytes? integer      model: of all messages
---@field message? table      model: the last message
---@field name? string        permit, tools: of the tool
---@field input? table        permit, tools
---@field tool_use_id? string permit, tools: id of the event
---@field content? table[]    tools: the result's content blocks
---@field is_error? boolean   tools
---@field text? string        tools: the text of content; settle: the text of the last reply
---@field stop_reason? table  idle: { type, event_ids }

---@class moonrig.HookContext
---@field session moonrig.Session
---@field thread? string the thread it happens in; not in accept
---@field generation integer
---@field log fun(...: string)

---@class moonrig.ModelContext
---@field session moonrig.Session
---@field generation integer
local ModelContext = {}

---Streams a piece of the answer.
---@param delta string
function ModelContext:text(delta) end

---@class moonrig.OutcomeOptions
---@field description string
---@field rubric string|table a text, a file as uploaded, or a wire form
---@field max_iterations? integer

---@class moonrig.Request
---@field method string
---@field path string                   decoded
---@field params table<string, string>  of the path, decoded; params["*"] is the rest
---@field query table<string, string>   decoded; of a name that comes twice the last
---@field query_string string           as it was sent
---@field headers table<string, string> names in lower case
---@field body string
---@field remote string                 the client's address
local Request = {}

---The body as JSON.
---@return any value
---@return moonrig.Error? err
function Request:json() end

---The body of an HTML form (application/x-www-form-urlencoded).
---@return table<string, string>? fields
---@return moonrig.Error? err
function Request:form() end

---@class moonrig.RouteResponse
---@field started boolean
local RouteResponse = {}

---Begins a response whose body is written bit by bit.
---@param status? integer default 200
---@param headers? table<string, string|string[]>
---@return true?, moonrig.Error? err when the client is gone
function RouteResponse:start(status, headers) end

---Writes a piece of the body; waits while the client is slow.
---@param bytes string
---@return true?, moonrig.Error? err when the client is gone
function RouteResponse:write(bytes) end

---Sends a server-sent event; begins the response as an event stream.
---@param o { event?: string, data: string|table, id?: string|integer } data: a table is sent as JSON
---@return true?, moonrig.Error? err when the client is gone
function RouteResponse:event(o) end

---The response is whole; the function may go on with other work.
function RouteResponse:close() end

---@class moonrig.ScheduleContext
---@field name string
---@field generation integer
---@field cancelled fun(): boolean
---@field log fun(...)

---@class moonrig.SqliteOptions
---@field timeout? number     seconds for waiting for locks and running; default 60
---@field max_rows? integer   default 10,000
---@field max_bytes? integer  of all rows; default 16 MiB

---@class moonrig.SqliteTransaction: moonrig.Sqlite

---@class moonrig.Thread has the fields of the API's object as they were when it was read
---@field id string
---@field session_id string
---@field parent_thread_id? string none: the primary
---@field status? string "idle", "running", "rescheduling", "terminated"
---@field agent? table its name, model and so on
---@field usage? table
---@field [string] any
local Thread = {}

---All its events, oldest first.
---@param o? { timeout?: number } seconds, for each page
---@return table[]?
---@return moonrig.Error?
function Thread:events(o) end

---Iterates over its events: history from the start (or after an event id), then live, with no gap, until it ends.
---As session:follow.
---@param o? { after?: string, deltas?: boolean, timeout?: number }
---@return moonrig.Follower
function Thread:follow(o) end

---Stops what it does now; the session's other threads go on.
---@param o? { timeout?: number } seconds
---@return table? event as stored
---@return moonrig.Error? err
function Thread:interrupt(o) end

---Ends it for good; its history stays, and it counts no more among the threads that a coordinator may have.
---@param o? { timeout?: number } seconds
---@return table? thread
---@return moonrig.Error? err
function Thread:archive(o) end

---Reads it again from the server; its fields are then up to date.
---@param o? { timeout?: number } seconds
---@return moonrig.Thread?
---@return moonrig.Error?
function Thread:refresh(o) end

---@class moonrig.ToolContext
---@field session moonrig.Session
---@field session_id string
---@field thread string
---@field tool_use_id string
---@field agent string
---@field attempt integer       1, more after a crash
---@field deadline number       seconds since 1970
---@field generation integer    of the scripts this call runs on
---@field cancelled fun(): boolean
---@field log fun(...)
---@field progress fun(...)      a line in the log: the API has no event for the progress of a tool
---@field idempotency_key fun(self, key: string): string the same in each attempt of this call
---@field once fun(self, key: string, fn: fun(idempotency_key: string): any, any): any, any

---@class moonrig.Turn
---@field text string        of the agent's last message in it
---@field stop_reason string "end_turn", "requires_action", "retries_exhausted", "refusal", "budget_reached", "terminated"
---@field usage table        tokens of this turn's model requests, added up
---@field events table[]     from the message on
---@field pending moonrig.Pending[] calls that wait for an answer
---@field outcome? { result: string, explanation: string, iteration: integer } the newest verdict of the grader in it
local Turn = {}

---Goes on after the pending calls were answered, or the budget was raised: waits for the next end of the turn. Calls of
---kind "tool" are a worker's to answer, when there is one. After a timeout_error it can be called again.
---@param o? { timeout?: number } seconds
---@return moonrig.Turn?
---@return moonrig.Error?
function Turn:wait(o) end

---@class moonrig.Pending a tool call that waits for an answer
---@field id string
---@field name string
---@field input table
---@field kind "confirm"|"custom"|"tool"
local Pending = {}

---Lets it run.
---@return boolean?, moonrig.Error?
function Pending:allow() end

---Refuses; the model reads why.
---@param why? string
---@return boolean?, moonrig.Error?
function Pending:deny(why) end

---Answers a client-side tool: text, a table (as JSON) or content blocks.
---@param content any
---@return boolean?, moonrig.Error?
function Pending:answer(content) end

---Answers with an error that the model reads.
---@param why? string
---@return boolean?, moonrig.Error?
function Pending:fail(why) end

return rig
