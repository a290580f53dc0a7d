-- A watcher that runs for long: it pages somebody when a session fails, reminds of approvals that nobody answers, and
-- forgets nothing when the server is restarted.
--
--   PAGER=http://pager.example/send moonrig serve --watch examples/watcher your/agents
local rig = require "moonrig"

local REMIND_AFTER = tonumber(rig.env.REMIND_AFTER or "") or 3600 -- seconds

local function page(text, key)
  if not rig.env.PAGER then return rig.log.warn("PAGER is not set: " .. text) end
  local res, err = rig.http.post(rig.env.PAGER, { json = { text = text, key = key }, timeout = 10, retry = 3, expect = { 200, 202, 204 } })
  if not res then rig.log.error("paging failed: ", err) end
end

-- durable: the position is kept under the name, so what happened while the server was down is seen at the next start.
-- At least once: after a crash an event may come again, which is why the pager gets a key to tell doubles by.
rig.on { name = "pager", event = "session.error", durable = true,
  run = function(ev, session)
    if ev.error.retry_status and ev.error.retry_status.type == "retrying" then return end -- not lost yet
    page(("session %s: %s"):format(session.id, ev.error.message), ev.id)
  end }

rig.on { name = "waiting", event = { "session.status_idle", "session.status_running" }, durable = true,
  run = function(ev, session)
    if ev.type == "session.status_idle" and ev.stop_reason.type == "requires_action" then
      assert(rig.kv.set("waiting/" .. session.id, rig.time.now(), { if_absent = true, ttl = 30 * 86400 }))
    else
      assert(rig.kv.delete("waiting/" .. session.id))
    end
  end }

rig.schedule { name = "remind", every = math.min(REMIND_AFTER, 60),
  run = function()
    for _, item in ipairs(assert(rig.kv.list("waiting/", { limit = 1000 }))) do
      if rig.time.now() - item.value >= REMIND_AFTER then
        page(("session %s waits for an answer"):format(item.key:match "/(.*)"), item.key)
        assert(rig.kv.set(item.key, rig.time.now(), { ttl = 30 * 86400 })) -- again after as long
      end
    end
  end }
