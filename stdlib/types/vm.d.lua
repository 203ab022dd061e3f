---@meta

---A machine. `<close>` ends it at once; so does dropping the last reference.
---@class vmoon.Vm
---@field id string a UUID
---@field name string
---@field state vmoon.State
---@field backend string
---@field cpus integer
---@field memory integer bytes
---@field cid integer the guest's vsock CID
---@field mac string
---@field console vmoon.Console
---@field balloon vmoon.Balloon
---@field faults vmoon.Faults
local Vm = {}

---Starts a created machine. A failed start goes back to `created`.
function Vm:start() end

---Returns once no vCPU runs guest code.
function Vm:pause() end

---Goes on after `pause`.
function Vm:resume() end

---Asks the agent, then presses the power button; forced at the timeout (`"10s"` by default).
---@param opts? { timeout: vmoon.Duration? }
---@return "graceful"|"forced"
function Vm:stop(opts) end

---Ends the machine at once; the handle stays open, for a restore.
function Vm:kill() end

---Crashes the machine at once, as if its power were cut: nothing that the guest has under way is served.
---A restore brings it back.
function Vm:crash() end

---Raises a non-maskable interrupt at the first vCPU. Linux reports it, or panics where
---`kernel.unknown_nmi_panic` is 1; the micro guest panics.
function Vm:nmi() end

---Closes a machine that does not run.
function Vm:remove() end

---Ends the machine and frees all that it holds. Idempotent.
function Vm:close() end

---Waits for a state; `"30s"` by default.
---@param state vmoon.State
---@param opts? { timeout: vmoon.Duration? }
function Vm:wait(state, opts) end

---@class vmoon.ExecOptions
---@field stdin? string|false the whole of standard input; `false` or nothing for none
---@field env? table<string, string|number> added to the agent's environment
---@field cwd? string
---@field timeout? vmoon.Duration then the command is killed, and `exec.timeout` raised
---@field user? string|integer

---@class vmoon.ExecResult
---@field code integer the exit code; 128 + signal when a signal ended it
---@field signal? integer
---@field stdout string
---@field stderr string
---@field ok boolean whether the code is 0
---@field duration number seconds by the guest's clock

---Runs a command: text for the guest's `sh -c` (the micro guest splits it into words), or a table of
---arguments. A code other than 0 is data, not an error.
---@param cmd string|(string|number)[]
---@param opts? vmoon.ExecOptions
---@return vmoon.ExecResult
function Vm:exec(cmd, opts) end

---@class vmoon.SpawnOptions: vmoon.ExecOptions
---@field pty? true|{ rows: integer?, cols: integer? } runs it on a terminal, 24 by 80 unless said: its output is all standard output, and `proc:close_stdin` types Ctrl-D

---Starts a command that runs while the script goes on. Standard input stays open unless `stdin` is given.
---@param cmd string|(string|number)[]
---@param opts? vmoon.SpawnOptions
---@return vmoon.Proc
function Vm:spawn(cmd, opts) end

---Runs commands, one after the other, and returns what they print. Raises `exec.status` when one
---fails. A last table without positions is taken as options.
---@param cmd string|(string|number)[]
---@param ... string|(string|number)[]|vmoon.ExecOptions
---@return string stdout
function Vm:succeed(cmd, ...) end

---The opposite: raises `exec.status` when a command succeeds.
---@param cmd string|(string|number)[]
---@param ... string|(string|number)[]|vmoon.ExecOptions
---@return string stdout
function Vm:fail(cmd, ...) end

---Puts the user's terminal on a program of the guest, a login shell by default, until it ends; Ctrl-]
---leaves it, which ends it too, and returns nil. Sizes are followed, and the terminal is restored. Raises
---`vm.spec` when standard input is not a terminal. The micro guest has no shell; its commands ignore keys.
---@param cmd? string|(string|number)[]
---@param opts? { env: table<string, string|number>?, cwd: string?, user: (string|integer)? }
---@return vmoon.ExecResult? result
function Vm:shell(cmd, opts) end

---@class vmoon.WriteOptions
---@field timeout? vmoon.Duration then `vm.timeout`; no limit by default
---@field parents? boolean make the directories above the path that are missing

---@class vmoon.WriteFileOptions: vmoon.WriteOptions
---@field mode? string octal digits, such as `"755"`; otherwise a file keeps its mode, and a new one gets `"644"`

---Writes a file in the guest, as its root. It appears, or replaces the one that is there, at one moment and
---is on the guest's disk when this returns; a symbolic link is written through, and what cannot be replaced
---(a device, a file of `/proc` or `/sys`) is written in place. A path is any bytes.
---
---Errors: `file.not_found` (a directory above the path is missing), `file.no_space`, `file.permission` (also
---of a read-only file system), `file.is_directory`, `file.not_directory`, `file.exists`, `file.io`; the same
---for all of these methods. The micro guest keeps single files of at most 128 KiB, without modes.
---@param path string
---@param data string
---@param opts? vmoon.WriteFileOptions
function Vm:write_file(path, data, opts) end

---All bytes of a file in the guest, those of `/proc` and `/sys` too.
---@param path string
---@param opts? { timeout: vmoon.Duration? }
---@return string data
function Vm:read_file(path, opts) end

---Copies a file or a whole directory of the host into the guest, as `cp -a` does: where `guest` is a
---directory, the copy goes into it under its own name, and otherwise becomes `guest`. It appears at one
---moment. A file replaces a file; a directory that is there already is `file.exists`.
---
---Modes, dates, symbolic links and the holes of sparse files are kept; all belongs to the guest's root. Hard
---links become files of their own. FIFOs, sockets and devices are `file.io`.
---@param host string
---@param guest string
---@param opts? vmoon.WriteOptions
function Vm:copy_in(host, guest, opts) end

---Copies a file or a whole directory of the guest to the host, in the same way. The guest is not trusted:
---nothing is written outside of the copy, a link that stands in its place is replaced and not followed, and
---set-user-ID bits are dropped.
---@param guest string
---@param host string
---@param opts? vmoon.WriteOptions
function Vm:copy_out(guest, host, opts) end

---Repeats a command until it succeeds (`timeout` `"30s"` by default). Between two attempts it rests for
---`interval`; without one, for a sixteenth of the time waited, from 5 to 200 ms.
---@param cmd string|(string|number)[]
---@param opts? { timeout: vmoon.Duration?, interval: vmoon.Duration? }
---@return string stdout
function Vm:wait_until(cmd, opts) end

---The waits below are pushed: the guest's agent tells as soon as it is so, and a wait for what is so
---already returns at once. Each lasts `"30s"` by default, then raises `vm.timeout` with what the guest saw
---last in the message and in `observed`. A guest that crashes or stops ends them with `guest.panic` or
---`guest.stopped`.

---Waits until somebody listens on a port in the guest: TCP over IPv4 or IPv6, or vsock.
---@param port integer
---@param opts? { timeout: vmoon.Duration? }
function Vm:wait_port(port, opts) end

---Waits until a file, directory or socket exists in the guest, even if its directories do not yet; with
---`gone`, until there is none.
---@param path string
---@param opts? { timeout: vmoon.Duration?, gone: boolean? }
function Vm:wait_file(path, opts) end

---Waits until somebody listens on a Unix socket in the guest, or receives datagrams. A path that begins
---with `@` names an abstract one.
---@param path string
---@param opts? { timeout: vmoon.Duration? }
function Vm:wait_socket(path, opts) end

---Waits until a process of the guest has ended, or every process of a name (the program's file name).
---@param process integer|string
---@param opts? { timeout: vmoon.Duration? }
function Vm:wait_exit(process, opts) end

---Waits until a systemd unit is in a state: one of systemd's (`active`, `inactive`, `failed`, …) or of the
---unit's kind (`running`, `exited`, `listening`, …); `active` by default. A unit that fails while it is to
---be active raises `exec.status` at once.
---@param name string `.service` may be left out
---@param opts? { timeout: vmoon.Duration?, state: string? }
function Vm:wait_unit(name, opts) end

---Waits until the guest has declared a name: by `vmoon-agent ready NAME` in Linux, by the command
---`ready NAME` in the micro guest. What was declared stays so; it is part of the guest's state, so that
---restores take it back and forks have it.
---@param name string
---@param opts? { timeout: vmoon.Duration? }
function Vm:wait_ready(name, opts) end

---@class vmoon.Info
---@field id string
---@field name string
---@field backend string
---@field state vmoon.State
---@field reason? string why it crashed or stopped
---@field cpus integer
---@field memory integer bytes
---@field uptime number seconds
---@field host_rss integer bytes of guest memory that are resident on the host
---@field dirty_pages integer pages dirtied since the last snapshot or restore
---@field devices { name: string, status: string }[]

---Figures for people.
---@return vmoon.Info
function Vm:info() end

---Freezes memory, vCPUs, devices and overlay disks as one unit; the machine goes on.
---@param name? string
---@return vmoon.Snapshot
function Vm:snapshot(name) end

---Goes back, in place. The newest snapshot of a name is taken.
---@param snapshot vmoon.Snapshot|string
---@param opts? vmoon.RestoreOptions
function Vm:restore(snapshot, opts) end

---The snapshots that exist, newest first.
---@return vmoon.Snapshot[]
function Vm:snapshots() end

---Writes a disk as the guest's device has it now, image and overlay in one, to a raw image: sparse, and
---at one moment, in place of a file that is there. The machine goes on meanwhile; what the guest's own
---caches hold is not on its disk yet (`sync` in the guest puts it there). A `"direct"` disk wants a
---machine that does not run.
---@param number integer `1` for the first of `disks`, `0` for the root
---@param path string
function Vm:commit_disk(number, path) end

---Deletes all but the newest `keep`.
---@param keep integer
---@return string[] ids of those deleted, oldest first
function Vm:prune(keep) end

---Connects to a program in the guest; `"10s"` by default. Raises `vsock.refused` when nobody listens.
---@param port integer
---@param opts? { timeout: vmoon.Duration? }
---@return vmoon.Stream
function Vm:connect(port, opts) end

---Answers programs of the guest that connect to the host.
---@param port integer
---@return vmoon.Listener
function Vm:listen(port) end

---@class vmoon.ForwardOptions
---@field port integer the vsock port
---@field unix? string the path of a Unix socket of the host
---@field tcp? string an address of the host, such as `"127.0.0.1:8080"`; port 0 takes a free one
---@field from? "host"|"guest" which side connects; `"host"` by default

---Carries connections between a socket of the host and a port of the guest, until it is closed.
---@param opts vmoon.ForwardOptions
---@return vmoon.Forward
function Vm:forward(opts) end

---@class vmoon.Console
local Console = {}

---All that the guest printed, as far as it is kept: the newest 4 MiB at least.
---@return string
function Console:text() end

---The last lines; 10 by default.
---@param count? integer
---@return string
function Console:tail(count) end

---Iterates over the lines from the first, and follows the console until the machine is closed.
---@return fun(): string?
function Console:lines() end

---Waits until the console shows a Lua pattern (`"30s"` by default). The search begins after what the
---previous `wait` of this machine found, and after the latest restore. Returns the captures, or the
---whole match where the pattern has none.
---@param pattern string
---@param opts? { timeout: vmoon.Duration? }
---@return string ...
function Console:wait(pattern, opts) end

---Types.
---@param text string
function Console:write(text) end

---@class vmoon.Balloon
---@field target integer bytes that the guest should be left with
---@field actual integer bytes that the guest is left with
local Balloon = {}

---Sets the memory that the guest should be left with. With `wait` it returns once it is, or raises
---`balloon.timeout` (`"10s"` by default).
---@param target vmoon.Size
---@param opts? { wait: boolean?, timeout: vmoon.Duration? }
function Balloon:set(target, opts) end

---The guest's own figures, absent where it reports none; bytes or events.
---@class vmoon.BalloonStats
---@field host_rss integer bytes of guest memory that are resident on the host
---@field free_memory? integer
---@field total_memory? integer
---@field available_memory? integer
---@field disk_caches? integer
---@field swap_in? integer
---@field swap_out? integer
---@field major_faults? integer
---@field minor_faults? integer
---@field hugetlb_allocations? integer
---@field hugetlb_failures? integer

---@return vmoon.BalloonStats
function Balloon:stats() end

---What is broken on purpose. Faults are part of the machine's state: a restore puts back those of the
---snapshot and undoes all others, and a fork begins with them; a snapshot on disk has none. Memory
---pressure is `vm.balloon:set`.
---@class vmoon.Faults
local Faults = {}

---@class vmoon.BlockFault
---@field disk? integer `1`, the first of `disks`, by default; `0` is the root
---@field op? "read"|"write"|"flush" all by default; discarding is writing
---@field sectors? integer[] the first and the last sector (of 512 bytes) of which a request must touch one
---@field after? integer so many matching requests are served as ever before
---@field times? integer so many requests meet the fault; all by default
---@field error? boolean they fail as I/O errors
---@field delay? vmoon.Duration the disk is busy for that long with each, and those behind it wait

---Requests to a disk fail or take long.
---@param rule vmoon.BlockFault
---@return vmoon.Fault
function Faults:block(rule) end

---@class vmoon.VsockFault
---@field port? integer of either side; without one, all ports but the agent's
---@field after? vmoon.Size so many bytes pass as ever before
---@field cut? boolean connections are cut, and new ones fail with `vsock.reset`
---@field delay? vmoon.Duration bytes and ends arrive that much later, both ways and in order, and to connect takes as much longer

---Connections to a port are cut, or slow.
---@param rule vmoon.VsockFault
---@return vmoon.Fault
function Faults:vsock(rule) end

---A vCPU makes no progress, while the machine runs. `index` counts from 0, as the guest does.
---@param rule { pause: boolean, index: integer? }
---@return vmoon.Fault
function Faults:vcpu(rule) end

---Sets the guest's wall clock to the host's plus a duration, which may be negative: `"1h"`, `"-5m"`.
---@param rule { jump: vmoon.Duration }
function Faults:clock(rule) end

---Mends everything.
function Faults:clear() end

---A fault in force. `<close>` mends it; dropping the handle does not.
---@class vmoon.Fault
---@field active boolean false once it is closed, or a restore has undone it
---@field hits? integer how often it was met; none when it is not active
local Fault = {}

---Mends what it broke. Idempotent.
function Fault:close() end

---How a machine goes on from a snapshot.
---@class vmoon.RestoreOptions
---@field paused? boolean holds it, whatever state the snapshot was taken in
---@field deterministic? boolean gives the guest neither fresh entropy nor the wall clock: every run from the snapshot is the same

---A snapshot, taken by `vm:snapshot` or read by `vmoon.load`. `<close>` deletes it; dropping the handle
---does not.
---@class vmoon.Snapshot
---@field id string a UUID
---@field name string
---@field vm_id string the machine that it was taken of, which a loaded snapshot has outlived
---@field parent? string the id of the snapshot that it was taken above
---@field created number seconds since 1970
---@field memory integer bytes
---@field dirty_pages integer pages dirtied since the parent; of a loaded one, all that hold something
---@field bytes integer what this snapshot holds
local Snapshot = {}

---One new machine that shares memory with this snapshot copy-on-write; with a count, an array of them.
---@overload fun(self: vmoon.Snapshot, count: integer, opts?: vmoon.RestoreOptions): vmoon.Vm[]
---@param opts? vmoon.RestoreOptions
---@return vmoon.Vm
function Snapshot:fork(opts) end

---Writes the snapshot to a directory that needs no other, for `vmoon.load`. One with a snapshot is
---replaced, at one moment; anything else in its place raises `file.io`.
---@param directory string
function Snapshot:save(directory) end

---Writes an overlay disk as it was in the snapshot to a raw image, as `vm:commit_disk` does.
---@param number integer
---@param path string
function Snapshot:commit_disk(number, path) end

---Forgets the snapshot. What others need of it is kept, and so is a directory that it was saved to or
---loaded from.
function Snapshot:delete() end

---Deletes the snapshot unless it is deleted.
function Snapshot:close() end
