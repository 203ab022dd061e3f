/* The two ways in, and the tables that the processor needs. Everything here is laid down by the
 * assembler: booting fills no table. */

#define CODE64 0x08
#define DATA 0x10
#define CODE32 0x18

    .section .note.Xen, "a", @note
    .align 4
    .long 4, 4, 18                  /* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long entry_pvh

    .text
/* The 64-bit Linux boot protocol: long mode, low 4 GiB mapped, RSI = boot_params. */
    .code64
    .globl entry_linux
entry_linux:
    xorl %edi, %edi                 /* main(0, boot_params) */
    movl $page_map, %eax
    movq %rax, %cr3
    lgdt gdt_pointer
    movl $stack_top, %esp
    pushq $CODE64
    pushq $entry_common
    lretq
entry_common:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    lidt idt_pointer
    movl $stack_top, %esp
    call main

/* PVH: 32-bit protected mode, paging off, EBX = hvm_start_info. */
    .code32
entry_pvh:
    cld
    movl $page_map, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax                 /* CR4.PAE */
    movl %eax, %cr4
    movl $0xc0000080, %ecx          /* EFER.LME */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $1, %edi                   /* main(1, hvm_start_info) */
    movl %ebx, %esi
    lgdt gdt_pointer
    movl %cr0, %eax
    orl $0x80000001, %eax           /* CR0.PG, CR0.PE */
    movl %eax, %cr0
    ljmp $CODE64, $entry_common

    .section .rodata
    .align 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff        /* 64-bit code */
    .quad 0x00cf93000000ffff        /* data */
    .quad 0x00cf9b000000ffff        /* 32-bit code */
gdt_pointer:
    .short gdt_pointer - gdt - 1
    .quad gdt

/* Identity map of the first 4 GiB in pages of 2 MiB. Memory above is mapped when it is first used
 * (high_memory.c), by adding entries to page_directory_pointers. */
    .section .tables, "aw"
    .align 4096
page_map:
    .quad page_directory_pointers + 3
    .fill 511, 8, 0
    .globl page_directory_pointers
page_directory_pointers:
    .quad page_directories + 0x0003
    .quad page_directories + 0x1003
    .quad page_directories + 0x2003
    .quad page_directories + 0x3003
    .fill 508, 8, 0
page_directories:
    .set address, 0
    .rept 2048
    .quad address + 0x83            /* present, writable, 2 MiB */
    .set address, address + 0x200000
    .endr

    .section .note.GNU-stack, "", @progbits
