/* What a guest kernel file must be. */
#include "admin/internal.h"

#include <elf.h>
#include <errno.h>

enum { PVH_NOTE = 18, NOTES_MAX = 65536 };

/* Walks the notes of one PT_NOTE segment; every length is checked against what is left. */
static bool has_pvh_note(const uint8_t *bytes, size_t len)
{
    size_t at = 0;
    while (len - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, bytes + at, sizeof(note));
        at += sizeof(note);
        size_t name = ((size_t)note.n_namesz + 3) & ~(size_t)3;
        size_t desc = ((size_t)note.n_descsz + 3) & ~(size_t)3;
        if (name > len - at || desc > len - at - name)
            return false;
        if (note.n_type == PVH_NOTE && note.n_namesz == 4 && memcmp(bytes + at, "Xen", 4) == 0 &&
            note.n_descsz >= 4)
            return true;
        at += name + desc;
    }
    return false;
}

static bool segment_has_pvh(int fd, const Elf64_Phdr *segment)
{
    if (segment->p_type != PT_NOTE || segment->p_filesz > NOTES_MAX)
        return false;
    cleanup_free uint8_t *bytes = malloc(segment->p_filesz + 1);
    return bytes != NULL &&
           pread(fd, bytes, segment->p_filesz, (off_t)segment->p_offset) ==
               (ssize_t)segment->p_filesz &&
           has_pvh_note(bytes, segment->p_filesz);
}

int admin_elf_check(int fd, const char *where, struct error *err)
{
    Elf64_Ehdr head;
    if (pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 ||
        head.e_machine != EM_X86_64)
        return error_set(err, ERR_CONFIG, 0,
                         "%s is not a 64-bit x86 ELF file: a bzImage must be unpacked to its "
                         "vmlinux first (deploy/kernel does)",
                         where);
    for (unsigned i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr segment;
        off_t at = (off_t)head.e_phoff + (off_t)(i * sizeof(segment));
        if (pread(fd, &segment, sizeof(segment), at) != (ssize_t)sizeof(segment))
            break;
        if (segment_has_pvh(fd, &segment))
            return 0;
    }
    return error_set(err, ERR_CONFIG, 0,
                     "%s has no PVH entry: build the kernel with CONFIG_PVH=y (Debian's has it)",
                     where);
}
