---@meta vmoon.task

---Functions that run side by side, on one thread: they take turns where they wait.
---@class vmoon.task
local task = {}

---Starts a task. It ends with the script; an error that nobody joins fails the script.
---@param fn fun(...): ...
---@param ... any
---@return vmoon.Task
function task.spawn(fn, ...) end

---Runs functions side by side; their first results, in order. The first error cancels the others.
---@param fns (fun(): any)[]
---@return any[]
function task.all(fns) end

---Calls `fn(item, index)` for each item, at most `limit` at a time; the first results, in order.
---@generic T, R
---@param list T[]
---@param fn fun(item: T, index: integer): R
---@param opts? { limit: integer? }
---@return R[]
function task.map(list, fn, opts) end

---The same as `vmoon.sleep`.
---@param duration vmoon.Duration
function task.sleep(duration) end

---The same as `vmoon.timeout`.
---@generic R
---@param duration vmoon.Duration
---@param fn fun(...): R...
---@param ... any
---@return R...
function task.timeout(duration, fn, ...) end

---@class vmoon.Task
local Task = {}

---Waits for the end; the task's results, or its error. Raises `task.cancelled` for a cancelled task.
---@return any ...
function Task:join() end

---Ends the task; its `<close>`s have run when this returns.
function Task:cancel() end

return task
