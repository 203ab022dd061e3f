/* The whole program as one translation unit: what a command passes through is inlined across files,
 * and everything is static. Each file stands on its own headers; lib.rs has the map. */
#include "types.h"
#include "cpu.h"
#include "memory.h"

/* The compiler may call these two for assignments of structures. */
__attribute__((used)) void *memcpy(void *to, const void *from, u64 length)
{
    copy(to, from, length);
    return to;
}
__attribute__((used)) void *memset(void *to, int byte, u64 length)
{
    fill(to, (u8)byte, length);
    return to;
}

#include "text.c"
#include "command_line.c"
#include "memory_layout.c"
#include "boot_info.c"
#include "apic.c"
#include "clock.c"
#include "timers.c"
#include "virtio.c"
#include "console.c"
#include "power.c"
#include "random.c"
#include "entropy.c"
#include "touched.c"
#include "store.c"
#include "balloon.c"
#include "block.c"
#include "vsock.c"
#include "output.c"
#include "frame.c"
#include "credit.c"
#include "connection.c"
#include "service.c"
#include "command_block.c"
#include "files.c"
#include "command_store.c"
#include "command_random.c"
#include "commands.c"
#include "exec.c"
#include "watch.c"
#include "agent.c"
#include "main.c"
