-- moonrig lint: the scripts are loaded as for a reload, in a VM of their own that registers nothing, and read
-- besides. What a declaration does not like is noted, not raised (declare.lua, boot.lua), so that one mistake does
-- not hide the next. core/script/lint.c calls begin, failed and finish, in this order.
-- A problem: { file, line, rule, message, fix }.
local native = require "moonrig.native"
local parse = require "moonrig.lint_parse"
local rules = require "moonrig.lint_rules"
local drift = require "moonrig.lint_drift"
local similar = require "moonrig.similar"
local err = require "moonrig.err"

-- Events that a session's log has (API: sessions, events).
local events = {}
for name in ([[user.message user.interrupt user.tool_confirmation user.tool_result user.custom_tool_result
  user.define_outcome system.message agent.message agent.thinking agent.tool_use agent.tool_result
  agent.custom_tool_use agent.mcp_tool_use agent.mcp_tool_result agent.thread_context_compacted
  agent.thread_message_sent agent.thread_message_received session.status_running session.status_idle
  session.status_rescheduled session.status_terminated session.error session.deleted session.updated session.usage
  session.thread_created session.thread_status_running session.thread_status_idle session.thread_status_rescheduled
  session.thread_status_terminated span.model_request_start span.model_request_end span.outcome_evaluation_start
  span.outcome_evaluation_ongoing span.outcome_evaluation_end]]):gmatch "%S+" do
  events[#events + 1] = name
end

local built_in = { "bash", "read", "write", "edit", "glob", "grep", "web_fetch", "web_search", "read_skill" }

-- -------------------------------------------------------------------------------------- where a problem is

---The calls of this function in a file, by what the scripts call it: "rig.tool".
local function calls_of(file, what)
  local list = {}
  for _, c in ipairs(file and file.facts and file.facts.calls or {}) do
    if c.path and table.concat(c.path, ".") == what then list[#list + 1] = c end
  end
  return list
end

---The call that made a declaration; line nil: it was in tail position (return rig.tool { ... }).
local function call_at(file, what, line)
  local tail
  for _, c in ipairs(calls_of(file, what)) do
    if line and c.line == line then return c end
    if c.tail then tail = tail or c end
  end
  return not line and tail or nil
end

---The table that agent.lua returns.
local function returned(file)
  return file and file.facts and file.facts.returned
end

---The line of fields, one in the other, of a table that is written out: as deep as it goes.
local function line_of(node, path)
  local line = node and node.line
  for _, key in ipairs(path) do
    local field = node and node.fields and (node.fields[key] or node.fields[tonumber(key) or 0])
    if not field then break end
    line, node = field.line, field.node
  end
  return line
end

---"input_schema.properties.a.type: ..." or "tools[2].name ...": the fields that a message begins with.
local function path_in(message)
  local text = message:match "^([%w_$][%w_$.%-%[%]]*)" or ""
  local path = {}
  for part in text:gsub("%[(%d+)%]", ".%1"):gmatch "[^.]+" do path[#path + 1] = part end
  return path
end

-- ------------------------------------------------------------------------------------------------- fixes

---What to do about a message that the library has for everybody.
local function advice(message)
  local close = message:match "did you mean ([%w_$.]+)%?"
  if close then return ("write %s"):format(close) end
  local known = message:match "unknown option %S+ %(known: (.-)%)"
  if known then return "remove it; known are " .. known end
  local give = message:match "is missing: (.+)$"
  if give then return give end
  local missing, kind = message:match "(%S+) must be a (%S+), got nothing"
  if missing then return ("add %s = (a %s)"):format(missing, kind) end
  local other = message:match "the other one is at (%S+)"
  if other then return "rename one of them; the other is at " .. other end
  if message:find "nothing may wait" then return "move it into a handler, or into rig.main" end
  if message:find "module '.-' not found" then return "put it beside the scripts, or set LUA_PATH" end
  if message:find "time budget spent" then return "do the work in a handler, or in rig.main" end
  if message:find "front matter" then return "begin the file with: ---, name: ..., description: ..., ---" end
  local todo = message:match "; (%l[^;]+)$"
  if todo then return todo end
  local should = (message:match "must be (.+)$" or ""):gsub(", got [%w ]+$", "")
  should = should ~= "" and should or message:match "is not there; (.-) is"
  if should then return "make it " .. should end
  return "see lua/README.md"
end

-- ---------------------------------------------------------------------------------------------- recording

-- What all passes have found (core/script/lint.c).
local total = { problems = {}, seen = {}, lines = {}, files = {}, nfiles = 0, changes = {} }

local function new(g)
  local self = { g = g, problems = total.problems, seen = total.seen, lines = total.lines, bad = {}, notes = {} }

  function self.add(file, line, rule, message, fix)
    local id = ("%s:%d:%s:%s"):format(file, line or 1, rule, message)
    if self.seen[id] then return end
    self.seen[id] = true
    self.lines[("%s:%d:%s"):format(file, line or 1, rule)] = true
    table.insert(self.problems, { file = file, line = line or 1, rule = rule, message = message, fix = fix or advice(message) })
  end

  ---A file did not load: what it raised.
  function self.failed(path, message)
    table.insert(self.notes, { file = path, message = err.text(message), raised = true })
  end

  local function mark(file, line, what) return ("%s:%s:%s"):format(file or "?", line or "tail", what) end

  ---What is missing in a declaration whose file did not load is no mistake of its own.
  function self.skip(d) self.bad[mark(d.file, d.line, d.what)] = true end

  ---g.lint: called with a note of declare.lua, or to run a check of one declaration (boot.lua's each).
  function self.lint(n, fn, i)
    if not fn then
      self.bad[mark(n.file, n.line, n.what)] = true
      table.insert(self.notes, n)
      return
    end
    local ok, e = pcall(fn, n, i)
    if ok or self.bad[mark(n.file, n.line, n.what)] then return end
    local message = err.text(e)
    if message:sub(1, #n.where + 2) == n.where .. ": " then message = message:sub(#n.where + 3) end
    table.insert(self.notes, { file = n.file or n.where:match "^(.-):%d+$" or n.where, line = n.line, what = n.what, message = message,
      inner = true, d = n })
  end

  return self
end

---What reaches outside while scripts load: it would happen at each reload, and here.
local function restrict(g)
  local e = g.env
  for name, tables in pairs { execute = e.os, remove = e.os, rename = e.os, tmpname = e.os, popen = e.io, tmpfile = e.io,
    read = e.io } do
    local what = (tables == e.os and "os." or "io.") .. name
    tables[name] = function()
      native.raise(("%s at load: top-level code declares, and does nothing else"):format(what))
    end
  end
  local open = e.io.open
  function e.io.open(path, mode)
    if type(mode) == "string" and mode:find "[wa+]" then
      native.raise "io.open for writing at load: top-level code declares, and does nothing else"
    end
    return open(path, mode)
  end
end

---A declaration that raises is noted, and the file goes on.
local function forgive(g, self)
  local rig = g.env.package.loaded.moonrig
  for _, name in ipairs { "tool", "agent", "environment", "hook", "on", "provider", "route", "schedule", "state", "main",
    "check", "defaults" } do
    local declare = rawget(rig, name)
    if type(declare) == "function" then
      rawset(rig, name, function(...)
        local r = { pcall(declare, ...) }
        if r[1] then return r[2], r[3] end
        self.failed(native.where() or "", r[2])
        return {}
      end)
    end
  end
end

native.entry("lint_begin", function(g)
  local self = new(g)
  g.linter, g.lint = self, self.lint
  restrict(g)
  forgive(g, self)
end)

native.entry("lint_failed", function(g, path, message)
  g.folder = nil
  g.linter.failed(path, message)
end)

-- ------------------------------------------------------------------------------------------------ reading

---All that was loaded from below the scripts' directories.
local function read_files(self, list)
  local g, files = self.g, {}
  for _, f in ipairs(list) do
    local inside = false
    for _, root in ipairs(g.roots) do inside = inside or f.path:sub(1, #root + 1) == root .. "/" or root == "." end
    local ok, facts = pcall(parse.facts, f.text)
    local file = { path = f.path, facts = ok and facts or nil, inside = inside }
    files[#files + 1] = file
    files[f.path] = file
  end
  return files
end

---Lua shortens long names in messages to "...end/of/name.lua".
local function full_name(files, short)
  if files[short] then return short end
  local tail = short:match "^%.%.%.(.+)$"
  for _, f in ipairs(tail and files or {}) do
    if f.path:sub(-#tail) == tail then return f.path end
  end
end

---"file:line: text" of an error, with the file's whole name.
local function split(files, message, path)
  local first = message:match "^[^\n]*"
  local at, line, text = first:match "^(.-):(%d+): (.*)$"
  local name = at and (full_name(files, at) or (native.is_file(at) and at))
  if name then return name, tonumber(line), text end
  name, text = first:match "^(.-): (.*)$"
  name = name and (full_name(files, name) or (native.is_file(name) and name))
  if name then return name, nil, text end
  return path, 1, first
end

---The line of the call that a file ends in: return rig.tool { ... }.
local function tail_line(file)
  for _, c in ipairs(file and file.facts and file.facts.calls or {}) do
    if c.tail and c.fn.main then return c.line end
  end
  return 1
end

local function rule_of(message)
  if message:find "unknown option" then return "unknown-field" end
  if message:find "no tool \"" or message:find "toolset has no" then return "unknown-tool" end
  if message:find "no agent \"" then return "unknown-agent" end
  if message:find "agents%[%d+%]: .- has agents itself" or message:find "agents is empty" or message:find "short form of multiagent" then
    return "bad-roster"
  end
  if message:find "got nothing" or message:find "is missing" then return "missing-field" end
  if message:find "input_schema" then return "bad-schema" end
  if message:find "declared twice" or message:find "a second skill" then return "duplicate" end
  if message:find "nothing may wait" or message:find "at load" or message:find "time budget" then return "blocking-at-load" end
  if message:find "module '.-' not found" then return "missing-module" end
  if message:find "phase" then return "unknown-phase" end
  if message:find "must be" then return "wrong-type" end
  return "load"
end

---Turns a note into a problem, at the line of the field that it is about.
local function judge(self, files, n)
  if n.file == "" then -- the plan could not be made: because of another problem, or else that is one
    if self.problems[1] then return end
    n.file = self.g.roots[1] or "."
  end
  if n.raised and n.message:find('module "moonrig.test" is there for test files only', 1, true) then
    return -- a test file is run by moonrig test; here it is only read
  end
  if n.raised and n.message:find "^moonrig/" and self.problems[1] then return end -- it followed from what was noted
  if n.raised then
    local file, line, text = split(files, n.message, n.file)
    local rule = rule_of(text)
    local _, stop = text:find "module '.-' not found"
    if stop then text = text:sub(1, stop) end
    if n.syntax or text:find " near " or text:find "'.-' expected" then rule = "syntax" end
    line = line or tail_line(files[file])
    local call = rule == "unknown-phase" and call_at(files[file], "rig.hook", line)
    local at = call and line_of(call.args[1], { "phase" })
    self.add(file, at or line, rule, text, rule == "syntax" and "mend the syntax" or nil)
    return
  end
  local file = files[n.file]
  local call = call_at(file, n.what, n.line)
  local node = call and call.args[1] or returned(file)
  local line = call and call.line or n.line
  local about = n.key and { n.key } or path_in((n.message:gsub('^%a+ "[^"]*": ', "")))
  line = line_of(node, about) or line
  if n.message:find("tools has a hole", 1, true) and self.lines[("%s:%d:unknown-tool"):format(n.file, line or 1)] then return end
  self.add(n.file, line, rule_of(n.message), n.message)
end

-- ---------------------------------------------------------------------------------- across declarations

---Where a declaration, one of its fields, or one text of the list in that field stands.
local function place(files, d, key, item)
  local file = files[d.file]
  local call = call_at(file, d.what, d.line)
  local node = call and call.args[1] or returned(file)
  local path = { key }
  local list = item and node and node.fields and node.fields[key] and node.fields[key].node.fields
  for k, field in pairs(list or {}) do
    if field.node.string == item then path[2] = k end
  end
  return d.file or d.where, line_of(node, path) or d.line or 1
end

local function check_tools(self, files, stored)
  local known, names = {}, {}
  for _, d in ipairs(self.g.decls.agent) do
    if type(d.decl.name) == "string" then
      known[d.decl.name] = true
      names[#names + 1] = d.decl.name
    end
  end
  for _, a in ipairs(stored and stored.agents or {}) do known[a.name], known[a.id] = true, true end
  for _, d in ipairs(self.g.decls.tool) do
    local t = d.decl
    local agent = type(t.agent) == "table" and t.agent.name or t.agent
    if type(agent) == "string" and not known[agent] and (stored or not agent:find "^agent_") then
      local file, line = place(files, d, "agent")
      local close = similar(agent, names)
      self.add(file, line, "unknown-agent", ("tool %q is only for the agent %q, which nothing declares: it is never called")
        :format(tostring(t.name), agent), close and ("did you mean %q?"):format(close) or "declare the agent, or leave agent out")
    end
    if type(t.description) == "string" and not t.description:find "%S" then
      local file, line = place(files, d, "description")
      self.add(file, line, "no-description", ("tool %q has no description"):format(tostring(t.name)),
        "say in a sentence what it does and when: the model chooses by it")
    end
  end
end

---Of hooks and watchers: a name that is nearly one that is there. Others may be of a client, or of an MCP server.
local function check_narrowed(self, files, stored)
  local g, names, there = self.g, { tool = {}, agent = {} }, {}
  local function known(kind, name)
    if type(name) ~= "string" then return end
    table.insert(names[kind], name)
    there[kind .. name] = true
  end
  for _, name in ipairs(built_in) do known("tool", name) end
  for _, d in ipairs(g.decls.tool) do known("tool", d.decl.name) end
  for _, d in ipairs(g.decls.agent) do known("agent", d.decl.name) end
  for _, a in ipairs(stored and stored.agents or {}) do
    known("agent", a.name)
    known("agent", a.id)
    for _, t in ipairs(a.tools or {}) do known("tool", t.name) end
  end
  for _, kind in ipairs { "hook", "on" } do
    for _, d in ipairs(g.decls[kind]) do
      for _, key in ipairs { "tool", "agent" } do
        local name = d.decl[key]
        local close = type(name) == "string" and not there[key .. name] and similar(name, names[key])
        if close then
          local file, line = place(files, d, key)
          self.add(file, line, "unknown-" .. key, ("no %s is named %q: this is never called"):format(key, name),
            ("did you mean %q?"):format(close))
        end
      end
    end
  end
end

local function check_events(self, files)
  for _, d in ipairs(self.g.decls.on) do
    for _, name in ipairs(d.decl.events or {}) do
      local there = false
      for _, e in ipairs(events) do there = there or e == name end
      if not there then
        local file, line = place(files, d, "event", name)
        local close = similar(name, events)
        self.add(file, line, "unknown-event", ("no event is of type %q: the watcher is never called"):format(name),
          close and ("did you mean %q?"):format(close) or "lua/README.md names the types of events")
      end
    end
  end
end

local function list_of(t)
  local list = setmetatable({}, native.array_mt)
  for i, v in ipairs(t) do list[i] = v end
  return list
end

---@param list { path: string, text: string }[]
---@param stored? string JSON of what a server has: { agents = [...] }
---@return string json
native.entry("lint_finish", function(g, list, stored)
  local self = g.linter
  local files = read_files(self, list)
  local rig = g.env.package.loaded.moonrig
  stored = stored and assert(native.json_decode(stored)) or nil
  local inside = {}
  for _, f in ipairs(files) do
    if f.inside and f.facts then
      inside[#inside + 1] = f
      if not total.files[f.path] then
        total.files[f.path] = true
        total.nfiles = total.nfiles + 1
      end
    end
  end
  rules.globals(inside, self.add)
  for _, f in ipairs(inside) do
    rules.names(f, rig, self.add)
    rules.modules(f, g, self.add)
    rules.handlers(f, self.add)
    rules.lookups(f, g, self.add)
  end
  for _, n in ipairs(self.notes) do judge(self, files, n) end
  check_tools(self, files, stored)
  check_narrowed(self, files, stored)
  check_events(self, files)
  for _, p in ipairs(self.problems) do -- what did not load was looked at, too
    if p.file:find "%.lua$" and not total.files[p.file] then
      total.files[p.file] = true
      total.nfiles = total.nfiles + 1
    end
  end
  for _, c in ipairs(stored and drift.compare(g, stored, function(d, key, ...)
    local file, line = place(files, d, key)
    self.add(file, line, ...)
  end) or {}) do
    if not total.changes[c.kind .. c.name] then
      total.changes[c.kind .. c.name] = true
      table.insert(total.changes, c)
    end
  end
  table.sort(self.problems, function(a, b)
    if a.file ~= b.file then return a.file < b.file end
    if a.line ~= b.line then return a.line < b.line end
    return a.rule .. a.message < b.rule .. b.message
  end)
  return assert(native.json_encode { files = total.nfiles, problems = setmetatable(self.problems, native.array_mt),
    changes = stored and list_of(total.changes) or native.null }, false, true)
end)
