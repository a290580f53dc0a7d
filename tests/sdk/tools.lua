-- The tools that the server of this suite owns: they are answered here, not by an API client.
local rig = require "moonrig"

rig.tool {
  name = "stock_level", description = "How many pieces of an article are in stock",
  input_schema = { type = "object", required = { "article" }, properties = { article = { type = "string" } } },
  run = function(input)
    rig.sleep(0.7) -- long enough for a client that wants to answer first
    return { article = input.article, pieces = #input.article * 10 }
  end,
}

rig.tool {
  name = "always_fails", description = "Fails", input_schema = { type = "object" },
  run = function() return nil, "the warehouse is closed" end,
}
