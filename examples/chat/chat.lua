-- A chat page on the server's own port: moonrig serve examples/chat --offline examples/chat/offline_model.lua
-- A person types in a browser, text streams in as the agent writes it, a tool call waits for a click.
local rig = require "moonrig"

local booked = {} -- times that are gone, as long as these scripts run: a real one asks a database
local book_table = rig.tool {
  name = "book_table", description = "Books a table, after the guest has confirmed it.",
  input_schema = { type = "object", required = { "people", "time" }, properties = {
    people = { type = "integer", minimum = 1, maximum = 12 },
    time = { type = "string", pattern = "^[0-2][0-9]:[0-5][0-9]$" } } },
  run = function(input)
    if booked[input.time] then return nil, "there is no table left at " .. input.time end
    booked[input.time] = true
    return { booked = true, people = input.people, time = input.time }
  end }
rig.hook { phase = "permit", agent = "host", tool = "book_table", fail = "closed",
  run = function() return "ask", "a booking is the guest's to confirm" end }
local host = rig.agent { name = "host", model = "claude-opus-4-7", system = rig.file "instructions.md",
  tools = { book_table } }

local page = rig.file "page.html"
rig.route { path = "/x/chat", public = true, run = function()
  return 200, page, { ["content-type"] = "text/html; charset=utf-8", ["content-security-policy"] =
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'" }
end }

-- A page of another site cannot send this content type, so it cannot speak in a guest's name.
local function body_of(req)
  local body = req.headers["content-type"] == "application/json" and req:json()
  if type(body) == "table" then return body end
  return nil, rig.error("invalid_request_error", "send an object as application/json", { status = 400 })
end

rig.route { method = "POST", path = "/x/chat", public = true, run = function(req)
  local body, e = body_of(req)
  if not body then return nil, e end
  local session, why = rig.session { agent = host, title = "chat" }
  if not session then return nil, why end
  return 201, { id = session.id }
end }

rig.route { method = "POST", path = "/x/chat/{id}", public = true, run = function(req)
  local body, e = body_of(req)
  if not body then return nil, e end
  local event = { type = "user.message", content = { { type = "text", text = tostring(body.text) } } }
  if body.tool_use_id then -- a click
    event = { type = "user.tool_confirmation", tool_use_id = body.tool_use_id, result = body.allow and "allow" or "deny",
      deny_message = not body.allow and "the guest said no" or nil }
  end
  local sent, why = rig.sessions.events.send(req.params.id, { events = { event } })
  if not sent then return nil, why end
  return 202
end }

rig.route { path = "/x/chat/{id}/events", public = true, run = function(req, res)
  local session, e = rig.session(req.params.id)
  if not session then return nil, e end
  res:start(200, { ["content-type"] = "text/event-stream", ["cache-control"] = "no-store" })
  for ev in session:follow { after = req.headers["last-event-id"], deltas = true } do
    if not res:event { data = ev, id = ev.processed_at and ev.id or nil } then return end
  end
end }
