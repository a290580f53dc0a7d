-- A directory is an agent: agents/NAME/ with agent.lua, instructions.md, tools/, hooks.lua, skills/.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local server = require "server"
local dir = os.getenv "SCRIPTS"

local function put(files)
  os.execute("rm -rf '" .. dir .. "'/*")
  for path, text in pairs(files) do
    os.execute(("mkdir -p '%s/%s'"):format(dir, path:match "^(.*)/" or "."))
    t.write(dir .. "/" .. path, text)
  end
end
local function load(files)
  put(files)
  local answer, code = t.control "reload"
  t.equal(code, 0, tostring(answer.error))
  rig.sleep(1)
end
local function refused(files, pattern)
  put(files)
  local answer, code = t.control "reload"
  t.ok(code ~= 0, "a refusal")
  t.match(answer.error, pattern)
end
local function agent(name)
  for _, a in ipairs(server.agents) do
    if a.name == name then return a end
  end
end
local function names(a)
  local list = {}
  for i, tool in ipairs(a.tools or {}) do list[i] = tool.name end
  return table.concat(list, " ")
end
local TOOL = "local rig = require 'moonrig'\nreturn rig.tool { name = '%s', description = 'x', run = function(_, ctx) return '%s of ' .. ctx.agent end }"
local function tool(name) return TOOL:format(name, name) end
local MODEL = "return { model = 'm' }"
local SKILL = "---\nname: %s\ndescription: %s\n---\nText of %s.\n"

t.test("the whole of it", function()
  server.reset()
  load {
    ["agents/payer/agent.lua"] = "local rig = require 'moonrig'\nreturn { model = 'm', description = 'pays', tools = { rig.toolset { 'bash' } } }",
    ["agents/payer/instructions.md"] = "Pay {{ nothing }}.\n",
    ["agents/payer/tools/b.lua"] = tool "b",
    ["agents/payer/tools/deep/a.lua"] = tool "a",
    ["agents/payer/tools/_off.lua"] = "error 'must not run'",
    ["agents/payer/tools/a_test.lua"] = "error 'must not run'",
    ["agents/payer/hooks.lua"] = "require('moonrig').hook { phase = 'permit', tool = 'b', run = function() return 'deny', 'no' end }",
    ["agents/reader/agent.lua"] = "require('moonrig').agent { model = 'm2', system = 'Read.' }",
    ["agents/reader/instructions.md"] = "not this",
    ["shared.lua"] = tool "shared",
  }
  t.quiet = nil
  local p, r = agent "payer", agent "reader"
  t.equal(p.system, "Pay {{ nothing }}.\n")
  t.equal(p.description, "pays")
  t.equal(p.tools[1].type, "agent_toolset_20260401")
  t.equal(p.tools[2].name .. p.tools[3].name, "ba")
  t.equal(r.system, "Read.")
  t.equal(r.model, "m2")
  local _, filter = host.registered("h", 1)
  t.match(filter, '"agent":"payer"')
  t.equal(host.count "t", 3)
end)
t.test("without agent.lua the model comes from rig.defaults", function()
  local files = { ["agents/short/instructions.md"] = "Be short." }
  refused(files, "agents/short/instructions.md:1: agent \"short\": model is missing: give model = \"...\" here, or rig.defaults")
  files["init.lua"] = "require('moonrig').defaults { model = 'd' }"
  files["not_run.lua"] = "error 'init.lua decides'"
  load(files)
  t.equal(agent("short").model, "d")
  t.equal(agent("short").system, "Be short.")
end)
t.test("directories of agents/ that are none stay plain scripts", function()
  load { ["agents/plain/x.lua"] = tool "plain", ["agents/y.lua"] = tool "why" }
  t.equal(host.count "t", 2)
end)
t.test("a module of the agent's own, of the same name as another's", function()
  local code = "local rig = require 'moonrig'\nlocal data = require 'data'\nreturn rig.tool { name = 'who', description = 'x', run = function() return data .. require('lib.late') end }"
  load {
    ["agents/one/agent.lua"] = MODEL, ["agents/one/tools/t.lua"] = code, ["agents/one/data.lua"] = "return 'one'",
    ["agents/one/lib/late.lua"] = "return ' late'",
    ["agents/two/agent.lua"] = MODEL, ["agents/two/tools/t.lua"] = code, ["agents/two/data.lua"] = "return 'two'",
    ["lib/late.lua"] = "return ' shared'",
  }
  t.equal(t.use "who", '"one late"')
end)
t.test("skills are listed, and read_skill gives their files and nothing else", function()
  load {
    ["agents/s/agent.lua"] = MODEL, ["agents/s/instructions.md"] = "Work.\n\n",
    ["agents/s/skills/pdf/SKILL.md"] = SKILL:format("pdf", '"Reads: PDFs"', "pdf"),
    ["agents/s/skills/pdf/ref/forms.md"] = "forms",
    ["agents/s/skills/pdf/.hidden"] = "hidden",
    ["agents/s/skills/pdf/image.bin"] = "\255\254",
    ["agents/s/skills/pdf/long.txt"] = ("x"):rep(256 * 1024 + 1),
    ["agents/s/skills/csv/SKILL.md"] = "---\nname: csv\ndescription: >\n  Tables\n  as text\nlicense: MIT\n---\nText of csv.\n",
    ["secret.txt"] = "secret",
  }
  os.execute(("ln -s '%s/secret.txt' '%s/agents/s/skills/pdf/link'"):format(dir, dir))
  t.control "reload"
  rig.sleep(1)
  t.equal(agent("s").system, "Work.\n\n# Skills\n\nWhen a task is one of these, read the skill with the tool read_skill first.\n\n- csv: Tables as text\n- pdf: Reads: PDFs")
  t.equal(names(agent "s"), "read_skill")
  t.equal(t.use("read_skill", { name = "csv" }), rig.json.encode "---\nname: csv\ndescription: >\n  Tables\n  as text\nlicense: MIT\n---\nText of csv.\n")
  t.match(t.use("read_skill", { name = "pdf" }), "Text of pdf.\\n\\n\\nFiles of this skill: SKILL.md, image.bin, long.txt, ref/forms.md")
  t.equal(t.use("read_skill", { name = "pdf", file = "ref/forms.md" }), '"forms"')
  local function refuses(input, why)
    local value, e = t.use("read_skill", input)
    t.equal(value, false)
    t.match(e, why)
  end
  for _, path in ipairs { "../../agent.lua", "../csv/SKILL.md", "/etc/passwd", "ref/../SKILL.md", ".hidden", "link", "ref", "" } do
    refuses({ name = "pdf", file = path }, "the skill has no file")
  end
  refuses({ name = "../s" }, "there is no skill")
  refuses({ name = "pdf", file = "image.bin" }, "is not text")
  refuses({ name = "pdf", file = "long.txt" }, "longer than 262144 bytes")
end)
t.test("what is wrong in a skill refuses, with its file and line", function()
  local function bad(text, pattern)
    refused({ ["agents/s/agent.lua"] = MODEL, ["agents/s/skills/x/SKILL.md"] = text }, pattern)
  end
  bad("No front matter", "agents/s/skills/x/SKILL.md:1: front matter is missing")
  bad("---\nname: x\n---\n", "SKILL.md:1: the front matter has no description")
  bad("---\nname: x\ndescription: y\n", "SKILL.md:1: the front matter has no end")
  bad("---\nname: x\nwhat is this\n---\n", "SKILL.md:3: front matter is lines of name: value")
  refused({ ["agents/s/agent.lua"] = MODEL, ["agents/s/skills/x/notes.md"] = "x" }, "skills/x/SKILL.md: a skill has this file")
  refused({ ["agents/s/agent.lua"] = MODEL, ["agents/s/skills/x/SKILL.md"] = SKILL:format("x", "y", "z"),
    ["agents/s/skills/y/SKILL.md"] = SKILL:format("x", "y", "z") }, "y/SKILL.md:1: a second skill is named \"x\"")
end)
t.test("what is wrong in an agent's folder refuses", function()
  refused({ ["agents/a/agent.lua"] = "return 5" }, "agents/a/agent.lua: return a table of the agent's fields")
  refused({ ["agents/a/agent.lua"] = "local x = 1" }, "agents/a/agent.lua: return a table")
  refused({ ["agents/a/agent.lua"] = "return { model = 'm', sytem = 'x' }" }, "unknown option sytem .*did you mean system%?")
  refused({ ["agents/a/agent.lua"] = "return { model = 'm', system = 5 }" }, "agents/a/agent.lua:1: agent \"a\": system must be a string")
  refused({ ["agents/a/agent.lua"] = MODEL, ["agents/a/tools/x.lua"] = "oops(" }, "agents/a/tools/x.lua:1:")
  refused({ ["agents/a/agent.lua"] = MODEL, ["agents/b/agent.lua"] = "return { name = 'a', model = 'm' }" }, "\"a\" is declared twice")
end)
t.test("agent.lua may give another name, and tools by name", function()
  load {
    ["agents/dir/agent.lua"] = "return { name = 'real', model = 'm', tools = { 'shared' } }",
    ["agents/dir/tools/own.lua"] = tool "own", ["shared.lua"] = tool "shared",
  }
  t.equal(names(agent "real"), "shared own")
  t.equal(t.use "own":match "^\"own of", "\"own of")
  load {}
end)
rig.main(t.run)
