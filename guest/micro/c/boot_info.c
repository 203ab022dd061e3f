#include "boot_info.h"
#include "command_line.h"
#include "memory_layout.h"

/* Offsets in Linux's boot_params ("zero page"; Documentation/arch/x86/zero-page.rst). */
enum {
    BOOT_PARAMS_EXT_CMD_LINE_PTR = 0x0c8,
    BOOT_PARAMS_E820_ENTRIES = 0x1e8,
    BOOT_PARAMS_CMD_LINE_PTR = 0x228,
    BOOT_PARAMS_E820_TABLE = 0x2d0,
    E820_ENTRY_SIZE = 20,
};

/* Offsets in PVH's hvm_start_info (xen/include/public/arch-x86/hvm/start_info.h). */
enum {
    START_INFO_VERSION = 4,
    START_INFO_COMMAND_LINE = 24,
    START_INFO_MEMORY_MAP = 40,
    START_INFO_MEMORY_MAP_ENTRIES = 48,
    START_INFO_ENTRY_SIZE = 24,
};

/* Both tables' entries begin with address (u64), size (u64), type (u32); type 1 is RAM. */
static void read_memory_map(const u8 *entry, u32 count, u32 stride)
{
    for (; count != 0; count--, entry += stride) {
        if (load32(entry + 16) == 1) {
            memory_add(load64(entry), load64(entry + 8));
        }
    }
}

static void boot_info_read(bool pvh, u64 info)
{
    const u8 *base = (const u8 *)info;
    u64 command_line;

    if (!pvh) {
        read_memory_map(base + BOOT_PARAMS_E820_TABLE, base[BOOT_PARAMS_E820_ENTRIES],
                        E820_ENTRY_SIZE);
        command_line = load32(base + BOOT_PARAMS_CMD_LINE_PTR) |
                       (u64)load32(base + BOOT_PARAMS_EXT_CMD_LINE_PTR) << 32;
    } else {
        if (load32(base + START_INFO_VERSION) >= 1) {
            read_memory_map((const u8 *)load64(base + START_INFO_MEMORY_MAP),
                            load32(base + START_INFO_MEMORY_MAP_ENTRIES), START_INFO_ENTRY_SIZE);
        }
        command_line = load64(base + START_INFO_COMMAND_LINE);
    }
    memory_seal();
    if (command_line != 0) {
        command_line_read((const u8 *)command_line);
    }
}
