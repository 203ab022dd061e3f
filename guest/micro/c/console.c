#include "console.h"
#include "cpu.h"
#include "memory.h"
#include "virtio.h"

#define SERIAL_PORT 0x3f8

enum {
    TRANSMIT_QUEUE = 1, /* of port 0; nothing is read, so console_queue 0 stays off */
    CONSOLE_SLOTS = 4,
    CONSOLE_SLOT_SIZE = 256,
};

static struct virtio_device console;
static VIRTQUEUE(CONSOLE_SLOTS) console_queue;
static u8 console_slots[CONSOLE_SLOTS][CONSOLE_SLOT_SIZE];

static void console_init(u64 base)
{
    virtio_begin(&console, base, 0);
    VIRTIO_QUEUE(&console, TRANSMIT_QUEUE, console_queue);
    virtio_ready(&console);
    VIRTIO_NO_INTERRUPT(&console, console_queue);
}

/* One piece; waits for the device when every slot is in use. */
static void write_piece(const u8 *text, u64 length)
{
    u16 index = console_queue.available.index;
    u16 slot = index % CONSOLE_SLOTS;

    while ((u16)(index - READ_ONCE(console_queue.used.index)) >= CONSOLE_SLOTS) {
        pause();
    }
    copy(console_slots[slot], text, length);
    console_queue.descriptors[slot].address = (u64)console_slots[slot];
    console_queue.descriptors[slot].length = (u32)length;
    console_queue.available.ring[slot] = slot;
    VIRTIO_PUBLISH(&console, TRANSMIT_QUEUE, console_queue, (u16)(index + 1));
}

static void console_write(const void *text, u64 length)
{
    const u8 *p = text;

    if (console.base == 0) {
        for (; length != 0; length--) {
            out8(SERIAL_PORT, *p++);
        }
        return;
    }
    while (length != 0) {
        u64 piece = length < CONSOLE_SLOT_SIZE ? length : CONSOLE_SLOT_SIZE;
        write_piece(p, piece);
        p += piece;
        length -= piece;
    }
}
