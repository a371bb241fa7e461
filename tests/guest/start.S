/*
 * Boot and traps of the test guest:
 *   VMM (PVH boot) -> _start: 32-bit, flat, no paging, ebx = hvm_start_info
 *   -> long mode on constant page tables -> 8259, IDT, clock -> iretq into ring 3 -> guest_main.
 * The C code runs in ring 3 on purpose: some KVM flavours emulate a guest's ring 0 one instruction at a time
 * and run ring 3 on the bare processor; on ordinary KVM both are native. Ring 3 has no system call that works
 * everywhere: it executes HLT, which faults with #GP, and the #GP handler serves the request in edi (enum
 * guest_trap in guest.h; the argument is in esi, the result in eax). Interrupts are taken in the idle trap
 * only. They just count: the rings in memory tell the rest.
 */
	.section .note.pvh, "a", @note
	.long	4, 4, 18		/* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	_start

/* The stubs lie at a fixed address, 16 bytes each, so that the IDT is a constant: guest.ld knows it too. */
	.section .stubs, "ax"
	.code64
	.set	vec, 0
	.rept	48			/* 0..31 exceptions, 32..47 the two 8259 */
	.balign	16
	.if	vec == 13
	jmp	gp_trap
	.elseif	vec < 32
	movb	$vec, %al
	jmp	dead
	.else
	incl	irq_count(%rip)		/* the 8259 ends the interrupt by itself */
	iretq
	.endif
	.set	vec, vec + 1
	.endr

gp_trap:				/* on the stack: error code, rip, cs, rflags, rsp, ss */
	testb	$3, 16(%rsp)
	movb	$13, %al
	jz	dead			/* a fault of ring 0 is a bug */
	addq	$8, %rsp
	movq	(%rsp), %rax
	cmpb	$0xf4, (%rax)		/* only HLT is a request */
	movb	$13, %al
	jne	dead
	incq	(%rsp)			/* step over it */
	movl	%edi, %eax
	testl	%eax, %eax
	jz	idle
	cmpl	$0x20000, %eax
	jae	timer
	cmpl	$0x10000, %eax
	jae	masks
	cmpl	$256, %eax
	je	reset
	cmpl	$258, %eax
	je	crash
	ja	hang
	cmpl	$257, %eax
	je	hang
	movw	$0x3f8, %dx		/* a character for the console */
	outb	%al, %dx
	iretq

idle:					/* did an interrupt come since the caller looked? then do not sleep */
	cmpl	%esi, irq_count(%rip)
	jne	1f
	sti
	hlt
	cli
1:	movl	irq_count(%rip), %eax
	iretq

masks:
	outb	%al, $0x21
	movb	%ah, %al
	outb	%al, $0xa1
	iretq

timer:					/* PIT channel 0, mode 0: one interrupt after ax ticks */
	movl	%eax, %edx
	movb	$0x30, %al
	outb	%al, $0x43
	movl	%edx, %eax
	outb	%al, $0x40
	movb	%ah, %al
	outb	%al, $0x40
	iretq

crash:
	lidt	no_idt(%rip)
	ud2
reset:
	movb	$0xfe, %al		/* the i8042's reset line */
	outb	%al, $0x64
hang:
	cli
	hlt
	jmp	hang

dead:					/* an exception nobody expects: "!" and its vector as a letter, A = 0 */
	movb	%al, %bl
	movw	$0x3f8, %dx
	movb	$'!', %al
	outb	%al, %dx
	leal	0x41(%rbx), %eax
	outb	%al, %dx
	movb	$'\n', %al
	outb	%al, %dx
	jmp	hang

	.section .text.start, "ax"
	.code32
	.globl	_start
_start:
	cld
	movl	$kernel_stack, %esp
	movl	%ebx, %edi		/* becomes the argument of guest_main */
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0x20, %eax		/* CR4.PAE */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	/* EFER.LME */
	movl	$0x100, %eax
	xorl	%edx, %edx
	wrmsr
	movl	$0x80010033, %eax	/* CR0: PG WP NE ET MP PE */
	movl	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$0x08, $long_mode

	.code64
long_mode:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	lidt	idt_pointer
	movl	$tss, %eax		/* the only part of the GDT that the linker cannot compute */
	movw	%ax, gdt + 0x28 + 2
	shrl	$16, %eax
	movb	%al, gdt + 0x28 + 4
	movb	%ah, gdt + 0x28 + 7
	movl	$0x28, %eax
	ltr	%ax
	movl	$pic_init, %esi
	movl	$10, %ecx
1:	movzbl	(%rsi), %edx
	movb	1(%rsi), %al
	outb	%al, %dx
	addl	$2, %esi
	loop	1b

	movl	$0x40000000, %eax	/* KVM's clock, where there is one: Documentation/virt/kvm/x86 in Linux */
	cpuid
	cmpl	$0x4b4d564b, %ebx	/* "KVMK" */
	jne	2f
	movl	$0x40000001, %eax
	cpuid
	testb	$8, %al			/* KVM_FEATURE_CLOCKSOURCE2 */
	jz	2f
	movl	$0x4b564d01, %ecx	/* MSR_KVM_SYSTEM_TIME_NEW */
	movl	$guest_clock_page + 1, %eax
	xorl	%edx, %edx
	wrmsr
2:
	pushq	$0x1b			/* into ring 3 with interrupts off */
	pushq	$user_stack
	pushq	$0x02
	pushq	$0x23
	pushq	$guest_main
	iretq

	.section .data
	.balign	16
gdt:	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff	/* null, ring 0 code and data */
	.quad	0x00cff3000000ffff, 0x00affb000000ffff		/* ring 3 data 0x1b, code 0x23 */
	.quad	0x0000890000000067, 0				/* TSS 0x28 */
gdt_pointer:
	.word	. - gdt - 1
	.quad	gdt
idt_pointer:
	.word	48 * 16 - 1
	.quad	idt
no_idt:	.word	0
	.quad	0
pic_init:				/* port, value: vectors 0x20.. and 0x28.., automatic end, all masked */
	.byte	0x20, 0x11, 0x21, 0x20, 0x21, 0x04, 0x21, 0x03
	.byte	0xa0, 0x11, 0xa1, 0x28, 0xa1, 0x02, 0xa1, 0x03
	.byte	0x21, 0xff, 0xa1, 0xff
	.balign	16
idt:	.set	vec, 0
	.rept	48			/* interrupt gates to 0x101000 + 16 * vector */
	.word	0x1000 + 16 * vec, 0x08, 0x8e00, 0x10
	.quad	0
	.set	vec, vec + 1
	.endr
	.balign	16
tss:	.long	0
	.quad	kernel_stack
	.skip	92

/* Identity map: the first GiB, and the uncached last one for devices. All for ring 3 too. */
	.balign	4096
pml4:	.quad	pdpt + 7
	.skip	4088
pdpt:	.quad	pd_low + 7, pd_low + 4096 + 7, 0, pd_high + 7
	.skip	4064
	.set	entry, 0x87
pd_low:	.rept	1024
	.quad	entry
	.set	entry, entry + 0x200000
	.endr
	.set	entry, 0xc000009f
pd_high:
	.rept	512
	.quad	entry
	.set	entry, entry + 0x200000
	.endr

	.section .bss
	.balign	64
	.globl	guest_clock_page
guest_clock_page:
	.skip	64
irq_count:
	.skip	64
	.skip	4096
kernel_stack:
	.skip	32768
user_stack:
	.section .note.GNU-stack, "", @progbits
