-- The offline model of tool_test.lua: answers from what it is asked.
local rig = require "moonrig"
return function(request, ctx)
  local q = request.messages[#request.messages].content
  if q == "say hello" then return "hello" end
  if q == "use echo" then
    return { { type = "text", text = "let me" }, { type = "tool_use", name = "echo", input = { a = 1 } } }
  end
  if q == "stream" then
    ctx:text "a"
    rig.sleep(0.01)
    ctx:text "b"
    return "ab"
  end
  if q == "full" then
    return { content = "cut", stop_reason = "max_tokens", usage = { input_tokens = 1, output_tokens = 2 } }
  end
  if q == "long" then return ("grün "):rep(500) end
  if q == "fail" then return nil, { type = "overloaded_error", message = "busy" } end
  if q == "break" then error "it broke" end
  if q == "number" then return 5 end
  if q == "sleep" then rig.sleep(1000) end
end
