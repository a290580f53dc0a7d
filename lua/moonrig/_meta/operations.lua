---@meta _
-- Types of the operations for editors. Made by scripts/dev/gen_meta from core/ops/ops.def.

---@class moonrig.CallOptions
---@field timeout? number seconds

---@class moonrig
local rig = {}

rig.agents = {}

---POST /v1/agents
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.agents.create(fields, options) end

---GET /v1/agents/{agent_id}
---@param agent_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.agents.retrieve(agent_id, fields, options) end

---POST /v1/agents/{agent_id}
---@param agent_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.agents.update(agent_id, fields, options) end

---GET /v1/agents
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.agents.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.agents.each(fields, options) end

---POST /v1/agents/{agent_id}/archive
---@param agent_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.agents.archive(agent_id, fields, options) end

rig.agents.versions = {}

---GET /v1/agents/{agent_id}/versions
---@param agent_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.agents.versions.list(agent_id, fields, options) end

---All items of all pages; raises when one cannot be read.
---@param agent_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.agents.versions.each(agent_id, fields, options) end

rig.environments = {}

---POST /v1/environments
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.create(fields, options) end

---GET /v1/environments/{environment_id}
---@param environment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.retrieve(environment_id, fields, options) end

---POST /v1/environments/{environment_id}
---@param environment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.update(environment_id, fields, options) end

---GET /v1/environments
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.environments.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.environments.each(fields, options) end

---POST /v1/environments/{environment_id}/archive
---@param environment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.archive(environment_id, fields, options) end

---DELETE /v1/environments/{environment_id}
---@param environment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.delete(environment_id, fields, options) end

rig.environments.work = {}

---GET /v1/environments/{environment_id}/work/{work_id}
---@param environment_id string|table an id, or what has one
---@param work_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.work.retrieve(environment_id, work_id, fields, options) end

---POST /v1/environments/{environment_id}/work/{work_id}
---@param environment_id string|table an id, or what has one
---@param work_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.work.update(environment_id, work_id, fields, options) end

---GET /v1/environments/{environment_id}/work
---@param environment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.work.list(environment_id, fields, options) end

---POST /v1/environments/{environment_id}/work/{work_id}/ack
---@param environment_id string|table an id, or what has one
---@param work_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.work.ack(environment_id, work_id, fields, options) end

---POST /v1/environments/{environment_id}/work/{work_id}/heartbeat
---@param environment_id string|table an id, or what has one
---@param work_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.work.heartbeat(environment_id, work_id, fields, options) end

---GET /v1/environments/{environment_id}/work/poll
---@param environment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.work.poll(environment_id, fields, options) end

---GET /v1/environments/{environment_id}/work/stats
---@param environment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.work.stats(environment_id, fields, options) end

---POST /v1/environments/{environment_id}/work/{work_id}/stop
---@param environment_id string|table an id, or what has one
---@param work_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.work.stop(environment_id, work_id, fields, options) end

rig.sessions = {}

---POST /v1/sessions
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.create(fields, options) end

---GET /v1/sessions/{session_id}
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.retrieve(session_id, fields, options) end

---POST /v1/sessions/{session_id}
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.update(session_id, fields, options) end

---GET /v1/sessions
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.sessions.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.sessions.each(fields, options) end

---POST /v1/sessions/{session_id}/archive
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.archive(session_id, fields, options) end

---DELETE /v1/sessions/{session_id}
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.delete(session_id, fields, options) end

rig.sessions.events = {}

---POST /v1/sessions/{session_id}/events
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.events.send(session_id, fields, options) end

---GET /v1/sessions/{session_id}/events
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.events.list(session_id, fields, options) end

---GET /v1/sessions/{session_id}/events/stream
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Stream? stream, moonrig.Error? err
function rig.sessions.events.stream(session_id, fields, options) end

rig.sessions.resources = {}

---POST /v1/sessions/{session_id}/resources
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.resources.add(session_id, fields, options) end

---GET /v1/sessions/{session_id}/resources/{resource_id}
---@param session_id string|table an id, or what has one
---@param resource_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.resources.retrieve(session_id, resource_id, fields, options) end

---POST /v1/sessions/{session_id}/resources/{resource_id}
---@param session_id string|table an id, or what has one
---@param resource_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.resources.update(session_id, resource_id, fields, options) end

---GET /v1/sessions/{session_id}/resources
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.sessions.resources.list(session_id, fields, options) end

---All items of all pages; raises when one cannot be read.
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.sessions.resources.each(session_id, fields, options) end

---DELETE /v1/sessions/{session_id}/resources/{resource_id}
---@param session_id string|table an id, or what has one
---@param resource_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.resources.delete(session_id, resource_id, fields, options) end

rig.sessions.threads = {}

---GET /v1/sessions/{session_id}/threads/{thread_id}
---@param session_id string|table an id, or what has one
---@param thread_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.threads.retrieve(session_id, thread_id, fields, options) end

---GET /v1/sessions/{session_id}/threads
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.sessions.threads.list(session_id, fields, options) end

---All items of all pages; raises when one cannot be read.
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.sessions.threads.each(session_id, fields, options) end

---POST /v1/sessions/{session_id}/threads/{thread_id}/archive
---@param session_id string|table an id, or what has one
---@param thread_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.threads.archive(session_id, thread_id, fields, options) end

rig.sessions.threads.events = {}

---GET /v1/sessions/{session_id}/threads/{thread_id}/events
---@param session_id string|table an id, or what has one
---@param thread_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.sessions.threads.events.list(session_id, thread_id, fields, options) end

---All items of all pages; raises when one cannot be read.
---@param session_id string|table an id, or what has one
---@param thread_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.sessions.threads.events.each(session_id, thread_id, fields, options) end

---GET /v1/sessions/{session_id}/threads/{thread_id}/stream
---@param session_id string|table an id, or what has one
---@param thread_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Stream? stream, moonrig.Error? err
function rig.sessions.threads.events.stream(session_id, thread_id, fields, options) end

rig.files = {}

---POST /v1/files
---@param what string|table a path, or { path = | bytes =, filename =, media_type = }
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.files.upload(what, fields, options) end

---GET /v1/files/{file_id}
---@param file_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.files.retrieve_metadata(file_id, fields, options) end

---GET /v1/files
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.files.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.files.each(fields, options) end

---DELETE /v1/files/{file_id}
---@param file_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.files.delete(file_id, fields, options) end

---GET /v1/files/{file_id}/content
---@param file_id string|table an id, or what has one
---@param fields? table { to = path } for a file
---@param options? moonrig.CallOptions
---@return string|table? bytes, moonrig.Error? err
function rig.files.download(file_id, fields, options) end

rig.models = {}

---GET /v1/models/{model_id}
---@param model_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.models.retrieve(model_id, fields, options) end

---GET /v1/models
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.models.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.models.each(fields, options) end

rig.messages = {}

---POST /v1/messages
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.messages.create(fields, options) end

---POST /v1/messages/count_tokens
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.messages.count_tokens(fields, options) end

rig.messages.batches = {}

---POST /v1/messages/batches (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.messages.batches.create(fields, options) end

---GET /v1/messages/batches/{message_batch_id} (not implemented yet)
---@param message_batch_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.messages.batches.retrieve(message_batch_id, fields, options) end

---GET /v1/messages/batches (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.messages.batches.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.messages.batches.each(fields, options) end

---GET /v1/messages/batches/{message_batch_id}/results (not implemented yet)
---@param message_batch_id string|table an id, or what has one
---@param fields? table { to = path } for a file
---@param options? moonrig.CallOptions
---@return string|table? bytes, moonrig.Error? err
function rig.messages.batches.results(message_batch_id, fields, options) end

---POST /v1/messages/batches/{message_batch_id}/cancel (not implemented yet)
---@param message_batch_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.messages.batches.cancel(message_batch_id, fields, options) end

---DELETE /v1/messages/batches/{message_batch_id} (not implemented yet)
---@param message_batch_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.messages.batches.delete(message_batch_id, fields, options) end

rig.vaults = {}

---POST /v1/vaults (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.create(fields, options) end

---GET /v1/vaults/{vault_id} (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.retrieve(vault_id, fields, options) end

---POST /v1/vaults/{vault_id} (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.update(vault_id, fields, options) end

---GET /v1/vaults (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.vaults.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.vaults.each(fields, options) end

---POST /v1/vaults/{vault_id}/archive (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.archive(vault_id, fields, options) end

---DELETE /v1/vaults/{vault_id} (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.delete(vault_id, fields, options) end

rig.vaults.credentials = {}

---POST /v1/vaults/{vault_id}/credentials (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.credentials.create(vault_id, fields, options) end

---GET /v1/vaults/{vault_id}/credentials/{credential_id} (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param credential_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.credentials.retrieve(vault_id, credential_id, fields, options) end

---POST /v1/vaults/{vault_id}/credentials/{credential_id} (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param credential_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.credentials.update(vault_id, credential_id, fields, options) end

---GET /v1/vaults/{vault_id}/credentials (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.vaults.credentials.list(vault_id, fields, options) end

---All items of all pages; raises when one cannot be read.
---@param vault_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.vaults.credentials.each(vault_id, fields, options) end

---POST /v1/vaults/{vault_id}/credentials/{credential_id}/archive (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param credential_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.credentials.archive(vault_id, credential_id, fields, options) end

---DELETE /v1/vaults/{vault_id}/credentials/{credential_id} (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param credential_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.credentials.delete(vault_id, credential_id, fields, options) end

---POST /v1/vaults/{vault_id}/credentials/{credential_id}/mcp_oauth_validate (not implemented yet)
---@param vault_id string|table an id, or what has one
---@param credential_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.vaults.credentials.mcp_oauth_validate(vault_id, credential_id, fields, options) end

rig.memory_stores = {}

---POST /v1/memory_stores (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.create(fields, options) end

---GET /v1/memory_stores/{memory_store_id} (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.retrieve(memory_store_id, fields, options) end

---POST /v1/memory_stores/{memory_store_id} (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.update(memory_store_id, fields, options) end

---GET /v1/memory_stores (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.memory_stores.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.memory_stores.each(fields, options) end

---POST /v1/memory_stores/{memory_store_id}/archive (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.archive(memory_store_id, fields, options) end

---DELETE /v1/memory_stores/{memory_store_id} (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.delete(memory_store_id, fields, options) end

rig.memory_stores.memories = {}

---POST /v1/memory_stores/{memory_store_id}/memories (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.memories.create(memory_store_id, fields, options) end

---GET /v1/memory_stores/{memory_store_id}/memories/{memory_id} (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param memory_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.memories.retrieve(memory_store_id, memory_id, fields, options) end

---POST /v1/memory_stores/{memory_store_id}/memories/{memory_id} (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param memory_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.memories.update(memory_store_id, memory_id, fields, options) end

---GET /v1/memory_stores/{memory_store_id}/memories (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.memory_stores.memories.list(memory_store_id, fields, options) end

---All items of all pages; raises when one cannot be read.
---@param memory_store_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.memory_stores.memories.each(memory_store_id, fields, options) end

---DELETE /v1/memory_stores/{memory_store_id}/memories/{memory_id} (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param memory_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.memories.delete(memory_store_id, memory_id, fields, options) end

rig.memory_stores.memory_versions = {}

---GET /v1/memory_stores/{memory_store_id}/memory_versions/{memory_version_id} (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param memory_version_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.memory_versions.retrieve(memory_store_id, memory_version_id, fields, options) end

---GET /v1/memory_stores/{memory_store_id}/memory_versions (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.memory_stores.memory_versions.list(memory_store_id, fields, options) end

---All items of all pages; raises when one cannot be read.
---@param memory_store_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.memory_stores.memory_versions.each(memory_store_id, fields, options) end

---POST /v1/memory_stores/{memory_store_id}/memory_versions/{memory_version_id}/redact (not implemented yet)
---@param memory_store_id string|table an id, or what has one
---@param memory_version_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.memory_stores.memory_versions.redact(memory_store_id, memory_version_id, fields, options) end

rig.skills = {}

---POST /v1/skills (not implemented yet)
---@param what string|table a path, or { path = | bytes =, filename =, media_type = }
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.skills.create(what, fields, options) end

---GET /v1/skills/{skill_id} (not implemented yet)
---@param skill_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.skills.retrieve(skill_id, fields, options) end

---GET /v1/skills (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.skills.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.skills.each(fields, options) end

---DELETE /v1/skills/{skill_id} (not implemented yet)
---@param skill_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.skills.delete(skill_id, fields, options) end

rig.skills.versions = {}

---POST /v1/skills/{skill_id}/versions (not implemented yet)
---@param what string|table a path, or { path = | bytes =, filename =, media_type = }
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.skills.versions.create(what, fields, options) end

---GET /v1/skills/{skill_id}/versions/{version} (not implemented yet)
---@param skill_id string|table an id, or what has one
---@param version string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.skills.versions.retrieve(skill_id, version, fields, options) end

---GET /v1/skills/{skill_id}/versions (not implemented yet)
---@param skill_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.skills.versions.list(skill_id, fields, options) end

---All items of all pages; raises when one cannot be read.
---@param skill_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.skills.versions.each(skill_id, fields, options) end

---DELETE /v1/skills/{skill_id}/versions/{version} (not implemented yet)
---@param skill_id string|table an id, or what has one
---@param version string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.skills.versions.delete(skill_id, version, fields, options) end

---GET /v1/skills/{skill_id}/versions/{version}/content (not implemented yet)
---@param skill_id string|table an id, or what has one
---@param version string|table an id, or what has one
---@param fields? table { to = path } for a file
---@param options? moonrig.CallOptions
---@return string|table? bytes, moonrig.Error? err
function rig.skills.versions.download(skill_id, version, fields, options) end

rig.deployments = {}

---POST /v1/deployments (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.deployments.create(fields, options) end

---GET /v1/deployments/{deployment_id} (not implemented yet)
---@param deployment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.deployments.retrieve(deployment_id, fields, options) end

---POST /v1/deployments/{deployment_id} (not implemented yet)
---@param deployment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.deployments.update(deployment_id, fields, options) end

---GET /v1/deployments (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.deployments.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.deployments.each(fields, options) end

---POST /v1/deployments/{deployment_id}/archive (not implemented yet)
---@param deployment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.deployments.archive(deployment_id, fields, options) end

---POST /v1/deployments/{deployment_id}/pause (not implemented yet)
---@param deployment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.deployments.pause(deployment_id, fields, options) end

---POST /v1/deployments/{deployment_id}/run (not implemented yet)
---@param deployment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.deployments.run(deployment_id, fields, options) end

---POST /v1/deployments/{deployment_id}/unpause (not implemented yet)
---@param deployment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.deployments.unpause(deployment_id, fields, options) end

rig.deployment_runs = {}

---GET /v1/deployment_runs/{deployment_run_id} (not implemented yet)
---@param deployment_run_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.deployment_runs.retrieve(deployment_run_id, fields, options) end

---GET /v1/deployment_runs (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.deployment_runs.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.deployment_runs.each(fields, options) end

rig.dreams = {}

---POST /v1/dreams (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.dreams.create(fields, options) end

---GET /v1/dreams/{dream_id} (not implemented yet)
---@param dream_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.dreams.retrieve(dream_id, fields, options) end

---GET /v1/dreams (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.dreams.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.dreams.each(fields, options) end

---POST /v1/dreams/{dream_id}/archive (not implemented yet)
---@param dream_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.dreams.archive(dream_id, fields, options) end

---POST /v1/dreams/{dream_id}/cancel (not implemented yet)
---@param dream_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.dreams.cancel(dream_id, fields, options) end

rig.user_profiles = {}

---POST /v1/user_profiles (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.user_profiles.create(fields, options) end

---GET /v1/user_profiles/{user_profile_id} (not implemented yet)
---@param user_profile_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.user_profiles.retrieve(user_profile_id, fields, options) end

---POST /v1/user_profiles/{user_profile_id} (not implemented yet)
---@param user_profile_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.user_profiles.update(user_profile_id, fields, options) end

---GET /v1/user_profiles (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.user_profiles.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.user_profiles.each(fields, options) end

---POST /v1/user_profiles/{user_profile_id}/enrollment_url (not implemented yet)
---@param user_profile_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.user_profiles.create_enrollment_url(user_profile_id, fields, options) end

---DELETE /v1/user_profiles/{user_profile_id} (not implemented yet)
---@param user_profile_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.user_profiles.delete(user_profile_id, fields, options) end

rig.user_profiles.action_urls = {}

---POST /v1/user_profiles/{user_profile_id}/action_urls (not implemented yet)
---@param user_profile_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.user_profiles.action_urls.create(user_profile_id, fields, options) end

rig.tunnels = {}

---POST /v1/tunnels (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.tunnels.create(fields, options) end

---GET /v1/tunnels/{tunnel_id} (not implemented yet)
---@param tunnel_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.tunnels.retrieve(tunnel_id, fields, options) end

---GET /v1/tunnels (not implemented yet)
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.tunnels.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.tunnels.each(fields, options) end

---POST /v1/tunnels/{tunnel_id}/archive (not implemented yet)
---@param tunnel_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.tunnels.archive(tunnel_id, fields, options) end

---POST /v1/tunnels/{tunnel_id}/reveal_token (not implemented yet)
---@param tunnel_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.tunnels.reveal_token(tunnel_id, fields, options) end

---POST /v1/tunnels/{tunnel_id}/rotate_token (not implemented yet)
---@param tunnel_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.tunnels.rotate_token(tunnel_id, fields, options) end

rig.tunnels.certificates = {}

---POST /v1/tunnels/{tunnel_id}/certificates (not implemented yet)
---@param tunnel_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.tunnels.certificates.create(tunnel_id, fields, options) end

---GET /v1/tunnels/{tunnel_id}/certificates/{certificate_id} (not implemented yet)
---@param tunnel_id string|table an id, or what has one
---@param certificate_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.tunnels.certificates.retrieve(tunnel_id, certificate_id, fields, options) end

---GET /v1/tunnels/{tunnel_id}/certificates (not implemented yet)
---@param tunnel_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.tunnels.certificates.list(tunnel_id, fields, options) end

---All items of all pages; raises when one cannot be read.
---@param tunnel_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.tunnels.certificates.each(tunnel_id, fields, options) end

---POST /v1/tunnels/{tunnel_id}/certificates/{certificate_id}/archive (not implemented yet)
---@param tunnel_id string|table an id, or what has one
---@param certificate_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.tunnels.certificates.archive(tunnel_id, certificate_id, fields, options) end

---POST /moonrig/v1/sessions/{session_id}/fork
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.fork(session_id, fields, options) end

---GET /moonrig/v1/sessions/{session_id}/export
---@param session_id string|table an id, or what has one
---@param fields? table { to = path } for a file
---@param options? moonrig.CallOptions
---@return string|table? bytes, moonrig.Error? err
function rig.sessions.export(session_id, fields, options) end

---POST /moonrig/v1/sessions/import
---@param what string|table a path, or { path = | bytes =, filename =, media_type = }
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.import(what, fields, options) end

rig.keys = {}

---POST /moonrig/v1/keys
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.keys.create(fields, options) end

---GET /moonrig/v1/keys
---@param fields? table
---@param options? moonrig.CallOptions
---@return moonrig.Page? page, moonrig.Error? err
function rig.keys.list(fields, options) end

---All items of all pages; raises when one cannot be read.
---@param fields? table
---@param options? moonrig.CallOptions
---@return fun(): table?
function rig.keys.each(fields, options) end

---DELETE /moonrig/v1/keys/{key_id}
---@param key_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.keys.revoke(key_id, fields, options) end

---GET /moonrig/v1/sessions/{session_id}/why
---@param session_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.sessions.why(session_id, fields, options) end

---POST /moonrig/v1/environments/{environment_id}/build
---@param environment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.build(environment_id, fields, options) end

---GET /moonrig/v1/environments/{environment_id}/diagnostics
---@param environment_id string|table an id, or what has one
---@param fields? table
---@param options? moonrig.CallOptions
---@return table? object, moonrig.Error? err
function rig.environments.diagnostics(environment_id, fields, options) end

return rig
