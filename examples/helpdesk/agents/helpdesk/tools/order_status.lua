local rig = require "moonrig"
local orders = require "orders" -- orders.lua beside agent.lua

return rig.tool {
  name = "order_status",
  description = "Looks an order up by its number: what was bought, for how much, and where it is",
  input_schema = { type = "object", required = { "order" },
    properties = { order = { type = "string", pattern = "^B-[0-9]+$" } } },
  run = function(input)
    local order = orders[input.order]
    if not order then return nil, "there is no order " .. input.order end
    return order
  end,
}
