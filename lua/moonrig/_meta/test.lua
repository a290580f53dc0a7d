---@meta moonrig.test
-- Types of the test kit for editors: local t = require "moonrig.test", in files that `moonrig test` runs.

---@class moonrig.test
local t = {}

---Declares a test; they run in order, each with scripts loaded afresh.
---@param name string
---@param fn fun()
function t.test(name, fn) end

---Loads a script, or a directory as `moonrig serve` does: at the top level for all tests of the file, in a test for
---this one. Relative to the project, else to the test file.
---@param path string
function t.load(path) end

---Values of rig.env; false: not set.
---@param values table<string, string|false>
function t.env(values) end

---@class moonrig.test.Request
---@field method string
---@field url string
---@field headers table<string, string> names in lower case
---@field body string
---@field json fun(self): any

---@class moonrig.test.Reply
---@field status? integer            default 200
---@field body? string|string[]      a list comes in these pieces
---@field headers? table<string, string>
---@field json? any                  the body, encoded
---@field error? string              no response: nil, err with this message

---@class moonrig.test.Stub
---@field calls moonrig.test.Request[] what it answered

---Answers rig.http. A request that no stub takes fails the test.
---@param o { method?: string, url: string, times?: integer, reply: moonrig.test.Reply|string|fun(request: moonrig.test.Request): moonrig.test.Reply|string|nil, any }
---@return moonrig.test.Stub
function t.http(o) end

---Calls a tool's handler: what it returns; raises what it raises.
---@param name string
---@param input? table
---@param o? { agent?: string, attempt?: integer, session?: moonrig.Session|string, tool_use_id?: string }
---@return any out
---@return any err
function t.call(name, input, o) end

---A reply of a scripted model: the use of a tool.
---@param name string
---@param input? table
---@param id? string
---@return table
function t.use(name, input, id) end

---A reply of a scripted model: text.
---@param text string
---@return table
function t.say(text) end

---A thought, in a list before what else a reply has.
---@param text string
---@return table
function t.thinking(text) end

---A failure of the model; "overloaded_error", "rate_limit_error" and "api_error" are tried again.
---@param type string
---@param message? string
---@return table
function t.fail(type, message) end

---A session as rig.session makes it; its model gives these replies in order, or is one function for all.
---@param o { agent?: string|table, model?: (table|string|function)[]|function, environment?: string, title?: string, metadata?: table, resources?: table, budget?: table }
---@return moonrig.Session
function t.session(o) end

---The model of sessions that were not made by t.session.
---@param model (table|string|function)[]|function
function t.model(model) end

---What the session's model was asked.
---@param s moonrig.Session
---@return table[]
function t.requests(s) end

---Compares the order of a session's events; "..." is any number of them.
---@param s moonrig.Session|string
---@param want (string|table)[]
function t.events(s, want) end

---Raises unless the two are equal in depth.
---@param got any
---@param want any
---@param what? string
function t.equal(got, want, what) end

---@param v any
---@param what? string
function t.is_nil(v, what) end

---@generic T
---@param v T
---@param what? string
---@return T
function t.ok(v, what) end

---@param text string
---@param pattern string of Lua
function t.match(text, pattern) end

---Raises unless fn raises an error whose message matches; returns the error.
---@param pattern string of Lua
---@param fn function
---@param ... any its arguments
---@return any
function t.raises(pattern, fn, ...) end

---Seconds since 1970 on the test's clock, which begins at 2026-01-01 and stands still.
---@return number
function t.now() end

---Moves the clock.
---@param seconds number
function t.advance(seconds) end

---Waits in real time until fn gives something; returns it.
---@param fn fun(): any
---@param what? string
---@return any
function t.wait(fn, what) end

---Lines of the log since the test began, "level source: text"; with a pattern of Lua, those that match.
---@param pattern? string
---@return string[]
function t.log(pattern) end

---The path of an empty directory that goes away after the test.
---@return string
function t.tmp() end

---Writes a session and its events to a file.
---@param s moonrig.Session
---@param path string
function t.record(s, path) end

---Runs a recorded session again and compares the events. agent: its name now.
---@param path string
---@param o? { agent?: string }
---@return moonrig.Session
function t.replay(path, o) end

return t
