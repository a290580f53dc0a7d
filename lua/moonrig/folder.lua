-- A directory is an agent: agents/NAME/ with
--   agent.lua        returns the agent's fields (name: the directory's), or declares it with rig.agent
--   instructions.md  the system prompt, as it is, unless agent.lua gives one
--   tools/*.lua      tools of this agent
--   hooks.lua        hooks and watchers of this agent
--   skills/*/SKILL.md  what it can read up: listed in the system prompt, read with the tool read_skill
-- Everything is read while scripts load, so that a call sees the skills of its own generation, and no path that a
-- model gives ever reaches the file system. Which files count: core/script/folder.c.
local native = require "moonrig.native"
local agents = require "moonrig.agent"
local tool = require "moonrig.tool"

local M = {}

local declares = { tool = true, hook = true, on = true, schedule = true, route = true, provider = true, agent = true }
local FILE_MAX, SKILLS_MAX = 256 * 1024, 4 * 1024 * 1024

local function read(path)
  local f, why = io.open(path, "rb")
  if not f then error(why, 0) end
  local text = f:read "*a"
  f:close()
  return text
end

-- ---------------------------------------------------------------------------------------------- skills

---The front matter of SKILL.md: name and description, each on one line or folded onto indented ones.
local function front_matter(text, path)
  text = text:gsub("^\239\187\191", ""):gsub("\r\n", "\n")
  if not text:find "^%-%-%-\n" then
    error(("%s:1: front matter is missing: ---, name: ..., description: ..., ---"):format(path), 0)
  end
  local meta, key, n = {}, nil, 1
  for line in (text:sub(5) .. "\n"):gmatch "(.-)\n" do
    n = n + 1
    if line:find "^%-%-%-%s*$" then
      key = false
      break
    end
    local name, value = line:match "^([%w_-]+):%s*(.-)%s*$"
    if name then
      key = name
      meta[key] = { line = n, text = value:find "^[>|][+-]?$" and "" or value }
    elseif key and line:find "^%s+%S" then
      local more = line:match "^%s*(.-)%s*$"
      meta[key].text = meta[key].text == "" and more or meta[key].text .. " " .. more
    elseif line:find "%S" and not line:find "^%s*#" then
      error(("%s:%d: front matter is lines of name: value"):format(path, n), 0)
    end
  end
  if key ~= false then error(("%s:1: the front matter has no end (---)"):format(path), 0) end
  for _, needed in ipairs { "name", "description" } do
    local m = meta[needed]
    m = m and (m.text:match '^"(.*)"$' or m.text:match "^'(.*)'$" or m.text) or ""
    if m == "" then error(("%s:1: the front matter has no %s"):format(path, needed), 0) end
    meta[needed] = m
  end
  return meta.name, meta.description
end

local function add_skill(folder, dir, list)
  local path = ("%s/skills/%s/SKILL.md"):format(folder.dir, dir)
  local skill = { files = {}, names = {} }
  for _, rel in ipairs(list) do
    local text = read(("%s/skills/%s/%s"):format(folder.dir, dir, rel))
    folder.bytes = folder.bytes + #text
    if #text > FILE_MAX then text = false end -- named, but too long for a model to read
    skill.files[rel] = text
    skill.names[#skill.names + 1] = rel
  end
  if folder.bytes > SKILLS_MAX then
    error(("%s/skills: more than %d bytes of files; put large data elsewhere"):format(folder.dir, SKILLS_MAX), 0)
  end
  if not skill.files["SKILL.md"] then error(path .. ": a skill has this file, at most 256 KiB", 0) end
  skill.name, skill.description = front_matter(skill.files["SKILL.md"], path)
  if folder.skills[skill.name] then error(("%s:1: a second skill is named %q"):format(path, skill.name), 0) end
  folder.skills[skill.name] = skill
  folder.order[#folder.order + 1] = skill.name
end

local function read_skills(folder, files)
  local dirs, order = {}, {}
  for _, rel in ipairs(files) do
    local dir, rest = rel:match "^skills/([^/]+)/(.+)$"
    if dir then
      if not dirs[dir] then
        dirs[dir] = {}
        order[#order + 1] = dir
      end
      table.insert(dirs[dir], rest)
    end
  end
  folder.skills, folder.order, folder.bytes = {}, {}, 0
  for _, dir in ipairs(order) do add_skill(folder, dir, dirs[dir]) end
end

local function listed(folder)
  local lines = { "# Skills", "", "When a task is one of these, read the skill with the tool read_skill first.", "" }
  for _, name in ipairs(folder.order) do
    lines[#lines + 1] = ("- %s: %s"):format(name, folder.skills[name].description)
  end
  return table.concat(lines, "\n")
end

---What the tool read_skill answers. All texts are in memory: a path can only name one of them.
local function read_skill(folder)
  return function(input)
    local skill = folder.skills[input.name]
    if not skill then
      return nil, ("there is no skill %q; there is: %s"):format(tostring(input.name), table.concat(folder.order, ", "))
    end
    local file = input.file or "SKILL.md"
    local text = skill.files[file]
    if text == nil then
      return nil, ("the skill has no file %q; it has: %s"):format(tostring(file), table.concat(skill.names, ", "))
    end
    if text == false then return nil, ("%s is longer than %d bytes"):format(file, FILE_MAX) end
    if not native.json_encode(text) then return nil, file .. " is not text" end
    if input.file or #skill.names == 1 then return text end
    return text .. "\n\nFiles of this skill: " .. table.concat(skill.names, ", ")
  end
end

local function declare_reader(g, folder)
  local t = tool {
    name = "read_skill", agent = folder.name,
    description = "Reads a skill: its instructions (SKILL.md), or another file of its folder.",
    input_schema = { type = "object", required = { "name" }, properties = {
      name = { type = "string", description = "of the skill" },
      file = { type = "string", description = "a file of the skill's folder; default SKILL.md" } } },
    idempotent = true, run = read_skill(folder),
  }
  local d = g.decls.tool[#g.decls.tool]
  d.where, d.file, d.line, d.folder = folder.dir .. "/skills", nil, nil, folder
  return t
end

-- ----------------------------------------------------------------------------------------------- agent

---The agent's spec: of the table that agent.lua returned, or of what it declared.
local function spec_of(g, folder, value, path)
  local declared
  for _, d in ipairs(g.decls.agent) do
    if d.folder == folder then declared = declared or d end
  end
  if declared then return declared.decl.spec end
  if value == nil then value = {} end -- there is no agent.lua
  if type(value) ~= "table" then
    error(("%s: return a table of the agent's fields (model, tools, ...)"):format(path), 0)
  end
  agents.agent(value)
  local d = g.decls.agent[#g.decls.agent]
  d.where, d.file, d.folder = path .. ":1", path, folder
  if folder.broken then g.linter.skip(d) end
  return d.decl.spec
end

---agent.lua may give another name than the directory's: what it declared before is of that agent.
local function rename(g, folder, name)
  if type(name) ~= "string" or name == folder.name then return end
  for _, kind in ipairs { "tool", "hook", "on" } do
    for _, d in ipairs(g.decls[kind]) do
      if d.folder == folder and d.decl.agent == folder.name then d.decl.agent = name end
    end
  end
  folder.name = name
end

local function add_tools(g, folder, spec)
  if spec.tools ~= nil and type(spec.tools) ~= "table" then return end
  local tools, there = {}, {}
  for i, t in pairs(spec.tools or {}) do
    tools[i] = t
    there[t] = true
  end
  for _, d in ipairs(g.decls.tool) do
    local t = d.decl
    if d.folder == folder and t.agent == folder.name and not there[t] and not there[t.name] then
      tools[#tools + 1] = t
    end
  end
  if next(tools) then spec.tools = tools end
end

---A file that declares something and is not run: most likely it was meant to be.
local function tell_others(g, dir)
  for _, path in ipairs(native.folder_others(g, dir)) do
    local ok, text = pcall(read, path)
    local n = 1
    for line in (ok and text or ""):gmatch "([^\n]*)\n?" do
      local what = line:match "^%s*rig%.(%a+)%s*[{(]" or line:match "^return rig%.(%a+)%s*[{(]"
      if what and declares[what] then
        local message = ("rig.%s here is not run: of an agent's directory agent.lua, hooks.lua and tools/ are"):format(what)
        local fix = "move it there, or require this file in agent.lua"
        if g.lint then
          g.linter.add(path, n, "not-run", message, fix)
        else
          native.log(1, ("%s:%d"):format(path, n), message .. "; " .. fix)
        end
        break
      end
      n = n + 1
    end
  end
end

---Loads an agent's folder; called by core/script while scripts load.
---@param g table
---@param dir string
---@param name string of the directory
function M.load(g, dir, name)
  local folder, has = { name = name, dir = dir }, {}
  local files = native.folder_files(dir)
  for _, rel in ipairs(files) do
    has[rel] = true
    native.note_file(g, dir .. "/" .. rel)
  end
  g.folder = folder
  g.folders[#g.folders + 1] = folder
  local function run(rel)
    local path, as = dir .. "/" .. rel, ("agents.%s.%s"):format(name, (rel:gsub("%.lua$", ""):gsub("/", ".")))
    if not g.lint then return native.load_file(g, path, as) end
    local ok, value = pcall(native.load_file, g, path, as)
    if ok then return value end
    g.linter.failed(path, value)
    folder.broken = folder.broken or rel == "agent.lua"
    return {}
  end
  local value
  if has["agent.lua"] then value = run "agent.lua" end
  local outer = g.file -- what errors name that are raised here
  g.file = dir .. (has["agent.lua"] and "/agent.lua" or "/instructions.md")
  local spec = spec_of(g, folder, value, g.file)
  rename(g, folder, spec.name)
  for _, rel in ipairs(files) do
    if rel:find "^tools/" then run(rel) end
  end
  if has["hooks.lua"] then run "hooks.lua" end
  read_skills(folder, files)
  if folder.order[1] then declare_reader(g, folder) end
  g.folder, g.file = nil, outer
  add_tools(g, folder, spec)
  if spec.system == nil and has["instructions.md"] then spec.system = read(dir .. "/instructions.md") end
  if folder.order[1] and (spec.system == nil or type(spec.system) == "string") then
    spec.system = (spec.system and spec.system:match "^(.-)%s*$" .. "\n\n" or "") .. listed(folder)
  end
  tell_others(g, dir)
end

return M
