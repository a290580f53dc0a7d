local rig = require "moonrig"
return rig.tool {
  name = "purchase_order", description = "Look up a purchase order by number",
  input_schema = { type = "object", required = { "id" }, properties = { id = { type = "string", pattern = "^PO-?[0-9]+$" } } },
  timeout = 10, concurrency = 4,
  run = function(input, ctx)
    local res, err = rig.http.get(rig.env.ERP .. "/po/" .. rig.url.escape(input.id), { timeout = 5, retry = 2, expect = 200 })
    if not res then return nil, err end
    return res:json()
  end,
}
