---@meta vmoon

-- Scripts find the module without `require`, too.
---@type vmoon
vmoon = {}

---A number of bytes, or text with a unit: `"512MiB"`, `"1GiB"`, `"64KiB"`.
---@alias vmoon.Size integer|string

---A number of seconds, or text with a unit: `"250ms"`, `"20s"`, `"2m"`.
---@alias vmoon.Duration number|string

---@alias vmoon.State
---| "created" # described, with its resources reserved; no guest code has run
---| "starting" # loading the kernel and starting the vCPUs
---| "running" # guest code runs
---| "paused" # no vCPU runs guest code
---| "stopping" # asked to power off
---| "stopped" # powered off; a restore can bring it back
---| "crashed" # triple fault, guest panic or a hypervisor error

---@alias vmoon.Code
---| "vm.spec" | "vm.state" | "vm.timeout" | "vm.not_found"
---| "guest.panic" | "guest.stopped"
---| "exec.status" | "exec.timeout" | "exec.not_found"
---| "agent.unavailable"
---| "vsock.refused" | "vsock.timeout" | "vsock.reset"
---| "snapshot.not_found" | "snapshot.foreign" | "snapshot.corrupt"
---| "snapshot.incompatible" | "snapshot.entropy"
---| "balloon.timeout"
---| "backend.unavailable" | "backend.unsupported"
---| "file.not_found" | "file.exists" | "file.no_space" | "file.not_directory" | "file.is_directory"
---| "file.permission" | "file.io"
---| "task.cancelled"

---What vmoon raises. `tostring` shows the code and the message. More fields tell of the case: `status`
---and `output` of a command, `state` and `allowed`, `port`, `timeout`, `key`.
---@class vmoon.Error
---@field code vmoon.Code
---@field message string what happened, in one line
---@field hint? string what to do about it

---@class vmoon.Disk
---@field path string a raw image; beneath an overlay, or to be read only, one in the format qcow2 too
---@field readonly? boolean
---@field mode? "overlay"|"direct" `"overlay"` (the default) keeps writes in memory, part of each snapshot

---@class vmoon.Share
---@field path string a directory of the host
---@field tag string the tag by which the guest mounts it
---@field readonly? boolean

---@class vmoon.Spec
---@field name? string unique among the live machines; chosen when absent
---@field backend? "auto"|"kvm"|"vz"|"qemu" the hypervisor; `"auto"` is the default
---@field guest? "micro"|"linux" the built-in guest (the default without a `kernel`), or a Linux that vmoon assembles
---@field kernel? string a bzImage or ELF kernel
---@field initrd? string an initramfs for the kernel
---@field cmdline? string appended to the kernel's command line
---@field cpus? integer number of vCPUs; 1 by default
---@field memory? vmoon.Size `"256MiB"` by default
---@field root? string|vmoon.Disk the image of a distribution's root file system (without partitions), which `guest = "linux"` boots with the agent in place; it is `/dev/vda`
---@field disks? vmoon.Disk[] the first is `/dev/vda`, or `/dev/vdb` where there is a `root`
---@field shares? vmoon.Share[]
---@field net? boolean a network interface; none by default
---@field vsock? boolean|{ cid: integer? } on by default, with a free CID
---@field balloon? boolean on by default
---@field entropy? boolean on by default
---@field rosetta? boolean off by default
---@field agent? boolean whether the guest runs vmoon's agent; on by default
---@field ready? string|false what `boot` waits for: `"agent"`, a Lua pattern on the console, or `false`
---@field timeout? vmoon.Duration how long `boot` waits; `"30s"` by default

---@class vmoon.Backend
---@field name string
---@field available boolean
---@field reason? string why it is not
---@field hint? string what to do about it

---What a backend can do here. `reasons` says why not, by the same names.
---@class vmoon.Capabilities
---@field backend string
---@field snapshot boolean
---@field fork boolean
---@field save boolean
---@field vsock boolean
---@field balloon boolean
---@field balloon_reclaims_host_memory boolean
---@field entropy boolean
---@field disks boolean
---@field qcow2 boolean whether qcow2 images can lie beneath overlays
---@field shares boolean
---@field net boolean
---@field rosetta boolean
---@field faults boolean whether `vm.faults`, `vm:crash` and `vm:nmi` work
---@field linux boolean
---@field max_cpus integer
---@field reasons table<string, string>

---@class vmoon
---@field task vmoon.task
---@field test vmoon.test
local vmoon = {}

---Creates a machine, starts it and waits until it is ready. One that does not get there is closed.
---@param spec? vmoon.Spec
---@return vmoon.Vm
function vmoon.boot(spec) end

---Makes a machine in state `created`; `vm:start()` runs it.
---@param spec? vmoon.Spec
---@return vmoon.Vm
function vmoon.create(spec) end

---Reads a snapshot that `snap:save` wrote, in this process or another; `snap:fork()` makes machines of
---it. Every hash is checked: raises `snapshot.corrupt` or `snapshot.incompatible`, which say which part,
---or `snapshot.not_found`.
---With `deterministic` every run from it gets neither fresh entropy nor the wall clock.
---@param directory string
---@param opts? { deterministic: boolean? }
---@return vmoon.Snapshot
function vmoon.load(directory, opts) end

---The live machines, oldest first.
---@return vmoon.Vm[]
function vmoon.list() end

---The live machine with this id or name.
---@param id_or_name string
---@return vmoon.Vm?
function vmoon.get(id_or_name) end

---What a backend can do here; without a name, the one that `"auto"` chooses.
---@param backend? string
---@return vmoon.Capabilities
function vmoon.capabilities(backend) end

---Every backend of this build, and whether it works here.
---@return vmoon.Backend[]
function vmoon.backends() end

---Waits, and lets other tasks run.
---@param duration vmoon.Duration
function vmoon.sleep(duration) end

---Calls `fn(...)` and returns its results; raises `vm.timeout` when it does not end in time. Its
---`<close>`s have run then.
---@generic R
---@param duration vmoon.Duration
---@param fn fun(...): R...
---@param ... any
---@return R...
function vmoon.timeout(duration, fn, ...) end

return vmoon
