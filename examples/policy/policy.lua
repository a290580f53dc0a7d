-- A policy: which tool calls may run, decided by their arguments. Load it beside other scripts; it speaks for every agent
-- of the server. It is code, so it can be tested, and edited while the server runs (--watch).
--
--   moonrig serve --watch examples/policy your/agents
--
-- A policy that looks at the text of a shell command stops accidents and clumsy injections, not a determined opponent:
-- there are too many ways to write a command. What holds is the sandbox; this keeps honest agents on the path.
local rig = require "moonrig"

-- First match decides. Patterns are Lua's; %f[%w] begins a word.
local commands = {
  { "%f[%w]rm%s+%-%a*[rf]%a*%s+/%s*$", "deny", "deleting the root folder" },
  { "%f[%w]rm%s+%-%a*[rf]", "ask", "deleting whole folders" },
  { "%f[%w]git%s+push.*%-%-force", "deny", "force-pushing; push to a branch of your own" },
  { "%f[%w]git%s+push", "ask", "pushing" },
  { "%f[%w]curl%f[%W].*|%s*%a*sh%f[%W]", "deny", "running what the network sends; download it, read it, then run it" },
  { "%f[%w]sudo%f[%W]", "deny", "becoming root" },
}

-- Where files may be written; everything else asks.
local folders = { "/workspace/", "/tmp/", "/mnt/session/outputs/" }

local function judge_command(command)
  if type(command) ~= "string" then return nil end -- restart, or an input that the tool itself refuses
  for _, rule in ipairs(commands) do
    if (command .. " "):find(rule[1]) or command:find(rule[1]) then return rule[2], "by policy: " .. rule[3] end
  end
end

local function judge_path(path)
  if type(path) ~= "string" then return nil end
  if path:find("..", 1, true) then return "deny", "by policy: paths with .. in them" end
  if path:sub(1, 1) ~= "/" then return nil end -- relative: below the working folder
  for _, folder in ipairs(folders) do
    if path:sub(1, #folder) == folder then return nil end
  end
  return "ask", "by policy: writing to " .. path
end

-- "closed": should a function here fail, the call is refused rather than waved through.
rig.hook { name = "commands", phase = "permit", tool = "bash", fail = "closed",
  run = function(call) return judge_command(call.input.command) end }

for _, tool in ipairs { "write", "edit" } do
  rig.hook { name = tool .. "s", phase = "permit", tool = tool, fail = "closed",
    run = function(call) return judge_path(call.input.file_path) end }
end
