local rig = require "moonrig"
local orders = require "orders"

return rig.tool {
  name = "refund",
  description = "Pays an amount back for an order",
  input_schema = { type = "object", required = { "order", "amount" },
    properties = { order = { type = "string" }, amount = { type = "number", minimum = 0 } } },
  run = function(input, ctx)
    local order = orders[input.order]
    if not order then return nil, "there is no order " .. input.order end
    if input.amount > order.price then return nil, ("%s cost %.2f"):format(input.order, order.price) end
    ctx.log("refund of", input.amount, "for", input.order)
    return ("%.2f paid back for %s"):format(input.amount, input.order)
  end,
}
