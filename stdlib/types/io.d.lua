---@meta

---One end of a vsock connection. It raises `vsock.reset` when the peer vanishes, `vsock.timeout` at a
---timeout.
---@class vmoon.Stream
---@field port integer the guest's port
local Stream = {}

---What has come, at most `count` bytes (64 KiB by default, 1 MiB at most); nil at the end.
---@overload fun(self: vmoon.Stream, opts: { timeout: vmoon.Duration? }): string?
---@param count? integer
---@param opts? { timeout: vmoon.Duration? }
---@return string?
function Stream:read(count, opts) end

---A line without its newline; nil at the end.
---@param opts? { timeout: vmoon.Duration? }
---@return string?
function Stream:read_line(opts) end

---Iterates over the lines.
---@return fun(): string?
function Stream:lines() end

---Returns once all of it is on its way; waits while the guest does not read.
---@param data string
---@param opts? { timeout: vmoon.Duration? }
function Stream:write(data, opts) end

---Says that nothing more will be written; reading goes on.
function Stream:shutdown() end

function Stream:close() end

---A port of the host on which the guest is answered.
---@class vmoon.Listener
---@field port integer
local Listener = {}

---The next connection.
---@param opts? { timeout: vmoon.Duration? }
---@return vmoon.Stream
function Listener:accept(opts) end

---The next connection, however long that takes; nil once the listener is closed.
---@return vmoon.Stream?
function Listener:next() end

---Iterates over connections until the listener is closed.
---@return fun(): vmoon.Stream?
function Listener:incoming() end

function Listener:close() end

---@class vmoon.Forward
---@field address string the host's address or path
---@field port integer the host's TCP port; the vsock port for other sockets
local Forward = {}

---Ends the forward and every connection that it carries.
function Forward:close() end

---A command that runs in the guest. Closing it kills it.
---@class vmoon.Proc
local Proc = {}

---Which of the command's streams is read: standard output unless this says otherwise. Of a stream that
---is not read, the newest 1 MiB is kept for later.
---@class vmoon.ReadOptions
---@field stream? "stdout"|"stderr"
---@field both? boolean both streams, in the order in which their output came

---Output as it comes, and which stream it came from; nil at the end.
---@param opts? vmoon.ReadOptions
---@return string? chunk
---@return "stdout"|"stderr"|nil stream
function Proc:read(opts) end

---A line of output without its newline, and its stream; nil at the end.
---@param opts? vmoon.ReadOptions
---@return string? line
---@return "stdout"|"stderr"|nil stream
function Proc:read_line(opts) end

---Iterates over the lines: `for line in proc:lines() do`, `for line, stream in proc:lines { both = true } do`.
---@param opts? vmoon.ReadOptions
---@return fun(): string?, "stdout"|"stderr"|nil
function Proc:lines(opts) end

---Writes to standard input.
---@param data string
function Proc:write(data) end

function Proc:close_stdin() end

---Waits for the end. The result holds the output that nobody read.
---@param opts? { timeout: vmoon.Duration? }
---@return vmoon.ExecResult
function Proc:wait(opts) end

---Sends a signal, by name or number; `"KILL"` by default.
---@param signal? string|integer
function Proc:kill(signal) end

---Sets the size of the command's terminal (`pty`).
---@param rows integer
---@param cols integer
function Proc:resize(rows, cols) end

function Proc:close() end
