-- options: -w
-- Routes belong to a generation: they come, change, go and come back with it, and a request stays on the one that
-- took it.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"

local function script(name, text) t.write(dir .. "/" .. name, "local rig = require 'moonrig'\n" .. text) end
local function route(path, body, more) return ("rig.route { path = %q, %s run = function(req, res) %s end }\n"):format(path, more or "", body) end
local function ended(id)
  local how, status, _, body = t.wait(function()
    local how, status, head, body = host.web_state(id)
    if how ~= "open" then return how, status, head, body end
  end)
  return status .. " " .. body, how
end
local function get(path) return (ended(assert(host.web("GET", path), "no route for " .. path))) end

t.test("routes come and go with their generation", function()
  script("a.lua", route("/x/a", "return 'one ' .. rig.generation()"))
  t.equal(t.control("reload").generation, 2)
  t.equal(get "/x/a", "200 one 2")
  script("a.lua", route("/x/a", "return 'two ' .. rig.generation()") .. route("/x/b", "return 'b'"))
  t.equal(t.control("reload").generation, 3)
  t.equal(get "/x/a", "200 two 3")
  t.equal(get "/x/b", "200 b")
  t.control "rollback"
  t.equal(get "/x/a", "200 one 2")
  t.equal(host.web("GET", "/x/b"), nil)
  t.control "rollback"
  t.equal(get "/x/b", "200 b")
  os.remove(dir .. "/a.lua")
  t.control "reload"
  t.equal(host.routes(), "")
  t.quiet = nil -- a generation more is alive from here on
  rig.sleep(0)
end)

t.test("a request stays on the generation that took it", function()
  script("a.lua", route("/x/slow", "rig.sleep(5) return 'old ' .. rig.generation()"))
  local g = t.control("reload").generation
  local id = host.web("GET", "/x/slow")
  rig.sleep(1)
  script("a.lua", route("/x/slow", "return 'new ' .. rig.generation()"))
  t.control "reload"
  t.equal(get "/x/slow", "200 new " .. g + 1)
  t.equal(ended(id), "200 old " .. g)
end)

t.test("other parameter names are the same route", function()
  script("a.lua", route("/x/p/{one}", "return 'one ' .. req.params.one"))
  t.control "reload"
  t.equal(get "/x/p/z", "200 one z")
  script("a.lua", route("/x/p/{two}", "return 'two ' .. req.params.two"))
  t.control "reload"
  t.equal(get "/x/p/z", "200 two z")
  t.equal(select(2, host.routes():gsub("\n", "\n")), 1)
end)

local function refused(name, text, pattern)
  t.test("refused: " .. name, function()
    local before = host.generation()
    script("bad.lua", text)
    local answer, code = t.control "reload"
    t.ok(code ~= 0)
    t.match(answer.error, pattern)
    t.equal(host.generation(), before)
    t.equal(get "/x/p/z", "200 two z")
    os.remove(dir .. "/bad.lua")
  end)
end
refused("twice in one generation, both places named", "\n" .. route("/x/p/{other}", "return 1"),
  "bad.lua:3: route GET /x/p/{other} is declared twice; the other one is at .*a.lua:2")
refused("what the core does not take; what was replaced is put back",
  route("/x/new", "return 'new'") .. route("/x/refused", "return 1"), "this host refuses it")
refused("misuse at the user's line", "\n\n" .. route("/x/{a}/{a}", "return 1"), "bad.lua:4: rig.route: path")

t.test("after a refusal nothing of it is left", function()
  t.equal(host.web("GET", "/x/new"), nil)
  os.remove(dir .. "/a.lua")
  t.control "reload"
  t.equal(host.routes(), "")
end)
rig.main(t.run)
