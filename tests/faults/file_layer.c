/* A layer between a process and the C library that sees every change of files below one folder.

   It is preloaded (LD_PRELOAD), so that native writers (pyarrow, zarr, numpy, Pillow) go through it as Python does. It does
   nothing until `layer_begin`. From then on it can

     count    changes in the order in which they happen, and write each of them into a log;
     kill     the process just before or just after the n-th change from `layer_arm` on;
     fail     the first change of given kinds from the n-th on with a given errno, or all of them (a full disk, a disk that
              became read-only): threads change the order, so the n-th itself may be of another kind;
     keep     what a disk is sure to hold: a second name of every file that is made, and a copy of its bytes whenever they are
              synced. With the log, disk_states.py makes of it what may be there after a power cut. No byte is really synced: no
              power is cut, and disks are slow.

   Changes inside the layer happen one at a time, so that the log's order is the true one. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CREATE, OPEN, TRUNCATE, WRITE, SYNC, SYNC_FOLDER, SYNC_ALL, RENAME, LINK, SYMLINK, UNLINK, RMDIR, MKDIR, MMAP };
static const char *NAMES[] = {"create", "open", "truncate", "write", "sync", "sync-folder", "sync-all",
                              "rename", "link", "symlink", "unlink", "rmdir", "mkdir", "mmap"};
enum action { NOTHING, KILL_BEFORE, KILL_AFTER, FAIL_ONCE, FAIL_FROM };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], keep[PATH_MAX];
static int log_file = -1;
static volatile int active = 0;
static long changes = 0, countdown_from = 0, target = 0;
static int action = NOTHING, failure = 0;
static unsigned failing_kinds = 0;

#define SYSCALL(...) syscall(__VA_ARGS__)
#define EXPORT __attribute__((visibility("default")))

/* ---- the log ---- */

static void log_line(const char *word, const char *kind, long inode, const char *first, const char *second) {
    char line[3 * PATH_MAX];
    int length = snprintf(line, sizeof line, "%s\t%ld\t%s\t%ld\t%s\t%s\n", word, changes, kind, inode, first, second);
    if (log_file >= 0 && SYSCALL(SYS_write, log_file, line, (size_t)length) < 0) abort();
}

EXPORT void layer_begin(const char *folder, const char *log_path, const char *keep_folder) {
    pthread_mutex_lock(&mutex);
    snprintf(root, sizeof root, "%s", folder);
    snprintf(keep, sizeof keep, "%s", keep_folder);
    int file = (int)SYSCALL(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_file = fcntl(file, F_DUPFD_CLOEXEC, 900); /* out of the way of programs that count on low numbers */
    SYSCALL(SYS_close, file);
    changes = 0;
    action = NOTHING;
    active = 1;
    pthread_mutex_unlock(&mutex);
}

EXPORT void layer_end(void) { active = 0; }

/* Into the log, among the changes. */
EXPORT void layer_note(const char *text) {
    pthread_mutex_lock(&mutex);
    log_line("note", "", 0, text, "");
    pthread_mutex_unlock(&mutex);
}

/* At the n-th change from here on, counted from 1, or at the first after it of the `kinds` (bits) that fail. */
EXPORT void layer_arm(long n, int what, int error, unsigned kinds) {
    pthread_mutex_lock(&mutex);
    countdown_from = changes;
    target = n;
    action = what;
    failure = error;
    failing_kinds = kinds;
    pthread_mutex_unlock(&mutex);
}

static void die(void) {
    SYSCALL(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* ---- which file ---- */

/* `path` without empty, "." and ".." pieces. */
static void tidy(char *path) {
    char copy[PATH_MAX], *rest = copy, *piece;
    size_t length = 0;
    snprintf(copy, sizeof copy, "%s", path);
    while ((piece = strsep(&rest, "/")) != NULL) {
        if (!*piece || !strcmp(piece, ".")) continue;
        if (!strcmp(piece, "..")) {
            while (length && path[--length] != '/') {}
            continue;
        }
        path[length++] = '/';
        memcpy(path + length, piece, strlen(piece));
        length += strlen(piece);
    }
    path[length] = 0;
}

static int path_of(int file, char *path) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = SYSCALL(SYS_readlinkat, AT_FDCWD, name, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return length > 0;
}

/* The path below the root ("" for the root itself), or NULL. */
static const char *below(const char *path) {
    size_t length = strlen(root);
    if (strncmp(path, root, length) || (path[length] && path[length] != '/')) return NULL;
    return path[length] ? path + length + 1 : path + length;
}

static const char *place_at(int folder, const char *name, char *path) {
    if (!active || !name) return NULL;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else {
        char base[PATH_MAX];
        if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(folder, base)) return NULL;
        if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return NULL;
    }
    tidy(path);
    return below(path);
}

static const char *place_of(int file, char *path) {
    return active && path_of(file, path) ? below(path) : NULL;
}

/* ---- a change ---- */

/* Before a change: takes the mutex. Returns the errno to fail with, then without the mutex, or 0. */
static int before(enum kind kind, const char *first, const char *second) {
    pthread_mutex_lock(&mutex);
    long n = ++changes - countdown_from;
    if (action == KILL_BEFORE && n == target) {
        log_line("before", NAMES[kind], 0, first, second);
        die();
    }
    int fails = (action == FAIL_ONCE || action == FAIL_FROM) && n >= target;
    if (fails && (failing_kinds >> kind & 1)) {
        if (action == FAIL_ONCE) action = NOTHING;
        log_line("failed", NAMES[kind], 0, first, second);
        pthread_mutex_unlock(&mutex);
        return failure;
    }
    return 0;
}

/* After a change: gives the mutex back. */
static void after(enum kind kind, int done, long inode, const char *first, const char *second) {
    int error = errno;
    long n = changes - countdown_from;
    log_line(done ? "done" : "refused", NAMES[kind], inode, first, second);
    if (action == KILL_AFTER && n == target) {
        log_line("after", NAMES[kind], inode, first, second);
        die();
    }
    pthread_mutex_unlock(&mutex);
    errno = error;
}

/* ---- what a disk is sure to hold ---- */

static void copy(const char *from, const char *to) {
    char bytes[65536];
    ssize_t length;
    int source = (int)SYSCALL(SYS_openat, AT_FDCWD, from, O_RDONLY | O_CLOEXEC, 0);
    int copied = (int)SYSCALL(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    while ((length = SYSCALL(SYS_read, source, bytes, sizeof bytes)) > 0)
        if (SYSCALL(SYS_write, copied, bytes, (size_t)length) != length) abort();
    if (source < 0 || copied < 0 || length < 0) abort();
    SYSCALL(SYS_close, source);
    SYSCALL(SYS_close, copied);
}

static long inode_of(int file) {
    struct stat status;
    return fstat(file, &status) ? 0 : (long)status.st_ino;
}

/* A second name of the file, under its inode's number: it stays when the first is removed, and no other file gets the number. */
static void keep_file(int file, long inode) {
    char name[64], copied_to[PATH_MAX + 64];
    if (!keep[0]) return;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    snprintf(copied_to, sizeof copied_to, "%s/%ld", keep, inode);
    if (SYSCALL(SYS_linkat, AT_FDCWD, name, AT_FDCWD, copied_to, AT_SYMLINK_FOLLOW) && errno != EEXIST) abort();
}

static void keep_synced(int file, long inode) {
    char name[64], copied_to[PATH_MAX + 64];
    if (!keep[0]) return;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    snprintf(copied_to, sizeof copied_to, "%s/%ld.%ld", keep, inode, changes);
    copy(name, copied_to);
}

static void keep_all_synced(void) {
    char from[PATH_MAX + 300], to[PATH_MAX + 300];
    DIR *folder = keep[0] ? opendir(keep) : NULL;
    struct dirent *entry;
    while (folder && (entry = readdir(folder)) != NULL) {
        if (strchr(entry->d_name, '.')) continue;
        snprintf(from, sizeof from, "%s/%s", keep, entry->d_name);
        snprintf(to, sizeof to, "%s/%s.%ld", keep, entry->d_name, changes);
        copy(from, to);
    }
    if (folder) closedir(folder);
}

/* ---- the C library's functions ---- */

static int open_file(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    const char *place = writes && (flags & O_TMPFILE) != O_TMPFILE ? place_at(folder, name, path) : NULL;
    if (!place) return (int)SYSCALL(SYS_openat, folder, name, flags, mode);
    struct stat status;
    int is_new = fstatat(folder, name, &status, 0) != 0;
    enum kind kind = is_new ? CREATE : flags & O_TRUNC ? TRUNCATE : OPEN;
    int error = before(kind, place, "");
    if (error) return errno = error, -1;
    int file = (int)SYSCALL(SYS_openat, folder, name, flags, mode);
    long inode = file < 0 ? 0 : inode_of(file);
    error = errno;
    if (file >= 0) keep_file(file, inode);
    errno = error;
    after(kind, file >= 0, inode, place, "");
    return file;
}

static mode_t mode_in(int flags, va_list rest) {
    return flags & (O_CREAT | __O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
}

#define OPENS(NAME)                                    \
    EXPORT int NAME(const char *name, int flags, ...) { \
        va_list rest;                                  \
        va_start(rest, flags);                         \
        mode_t mode = mode_in(flags, rest);            \
        va_end(rest);                                  \
        return open_file(AT_FDCWD, name, flags, mode); \
    }
#define OPENS_AT(NAME)                                             \
    EXPORT int NAME(int folder, const char *name, int flags, ...) { \
        va_list rest;                                              \
        va_start(rest, flags);                                     \
        mode_t mode = mode_in(flags, rest);                        \
        va_end(rest);                                              \
        return open_file(folder, name, flags, mode);               \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
EXPORT int __open_2(const char *name, int flags) { return open_file(AT_FDCWD, name, flags, 0); }
EXPORT int __open64_2(const char *name, int flags) { return open_file(AT_FDCWD, name, flags, 0); }
EXPORT int __openat_2(int folder, const char *name, int flags) { return open_file(folder, name, flags, 0); }
EXPORT int __openat64_2(int folder, const char *name, int flags) { return open_file(folder, name, flags, 0); }
EXPORT int creat(const char *name, mode_t mode) { return open_file(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int creat64(const char *name, mode_t mode) { return creat(name, mode); }

/* A change of an open file's bytes; `CALL` does it. */
#define CHANGES(KIND, FILE_NUMBER, TYPE, FAILED, CALL)                  \
    do {                                                                \
        char path[PATH_MAX];                                            \
        const char *place = place_of(FILE_NUMBER, path);                \
        if (!place) return CALL;                                        \
        int error = before(KIND, place, "");                            \
        if (error) return errno = error, FAILED;                        \
        TYPE result = CALL;                                             \
        after(KIND, result != FAILED, inode_of(FILE_NUMBER), place, ""); \
        return result;                                                  \
    } while (0)

EXPORT ssize_t write(int file, const void *bytes, size_t count) {
    CHANGES(WRITE, file, ssize_t, -1, SYSCALL(SYS_write, file, bytes, count));
}
EXPORT ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    CHANGES(WRITE, file, ssize_t, -1, SYSCALL(SYS_pwrite64, file, bytes, count, offset));
}
EXPORT ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) { return pwrite(file, bytes, count, offset); }
EXPORT ssize_t writev(int file, const struct iovec *pieces, int count) {
    CHANGES(WRITE, file, ssize_t, -1, SYSCALL(SYS_writev, file, pieces, count));
}
EXPORT ssize_t sendfile(int to, int from, off_t *offset, size_t count) {
    CHANGES(WRITE, to, ssize_t, -1, SYSCALL(SYS_sendfile, to, from, offset, count));
}
EXPORT ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) { return sendfile(to, from, offset, count); }
EXPORT ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t count, unsigned flags) {
    CHANGES(WRITE, to, ssize_t, -1, SYSCALL(SYS_copy_file_range, from, from_at, to, to_at, count, flags));
}
EXPORT int ftruncate(int file, off_t length) { CHANGES(TRUNCATE, file, int, -1, (int)SYSCALL(SYS_ftruncate, file, length)); }
EXPORT int ftruncate64(int file, off64_t length) { return ftruncate(file, length); }
EXPORT int fallocate(int file, int mode, off_t offset, off_t length) {
    CHANGES(TRUNCATE, file, int, -1, (int)SYSCALL(SYS_fallocate, file, mode, offset, length));
}
EXPORT int fallocate64(int file, int mode, off64_t offset, off64_t length) { return fallocate(file, mode, offset, length); }
EXPORT int posix_fallocate(int file, off_t offset, off_t length) { return fallocate(file, 0, offset, length) ? errno : 0; }
EXPORT int posix_fallocate64(int file, off64_t offset, off64_t length) { return posix_fallocate(file, offset, length); }
EXPORT int truncate(const char *name, off_t length) {
    int file = open_file(AT_FDCWD, name, O_WRONLY | O_CLOEXEC, 0);
    if (file < 0) return -1;
    int result = ftruncate(file, length), error = errno;
    SYSCALL(SYS_close, file);
    errno = error;
    return result;
}
EXPORT int truncate64(const char *name, off64_t length) { return truncate(name, length); }

/* Bytes written into a file that is mapped are seen by no call. */
EXPORT void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset) {
    char path[PATH_MAX];
    int writes = file >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE);
    const char *place = writes ? place_of(file, path) : NULL;
    if (place && !before(MMAP, place, "")) after(MMAP, 1, inode_of(file), place, "");
    return (void *)SYSCALL(SYS_mmap, address, length, protection, flags, file, offset);
}
EXPORT void *mmap64(void *address, size_t length, int protection, int flags, int file, off64_t offset) {
    return mmap(address, length, protection, flags, file, offset);
}

/* stdio writes by calls inside the C library, so its own functions are the changes. */
#define NEXT(NAME) ((typeof(&NAME))dlsym(RTLD_NEXT, #NAME))

EXPORT FILE *fopen(const char *name, const char *mode) {
    int flags = strchr(mode, '+') ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
    char path[PATH_MAX];
    if (flags == O_RDONLY || !place_at(AT_FDCWD, name, path)) return NEXT(fopen)(name, mode);
    flags |= mode[0] == 'w' ? O_CREAT | O_TRUNC : mode[0] == 'a' ? O_CREAT | O_APPEND : 0;
    flags |= (strchr(mode, 'x') ? O_EXCL : 0) | (strchr(mode, 'e') ? O_CLOEXEC : 0);
    int file = open_file(AT_FDCWD, name, flags, 0666);
    return file < 0 ? NULL : fdopen(file, mode);
}
EXPORT FILE *fopen64(const char *name, const char *mode) { return fopen(name, mode); }
EXPORT size_t fwrite(const void *bytes, size_t size, size_t count, FILE *stream) {
    CHANGES(WRITE, fileno(stream), size_t, 0, NEXT(fwrite)(bytes, size, count, stream));
}
EXPORT int fflush(FILE *stream) {
    if (!stream) return NEXT(fflush)(stream);
    CHANGES(WRITE, fileno(stream), int, EOF, NEXT(fflush)(stream));
}
EXPORT int fclose(FILE *stream) {
    char path[PATH_MAX];
    int file = fileno(stream), flags = active ? fcntl(file, F_GETFL) : O_RDONLY;
    const char *place = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY ? place_of(file, path) : NULL;
    if (!place) return NEXT(fclose)(stream);
    long inode = inode_of(file);
    int error = before(WRITE, place, "");
    if (error) return NEXT(fclose)(stream), errno = error, EOF;
    int result = NEXT(fclose)(stream);
    after(WRITE, result == 0, inode, place, "");
    return result;
}

static int sync_file(int file, long call) {
    char path[PATH_MAX];
    struct stat status;
    const char *place = place_of(file, path);
    if (!place || fstat(file, &status)) return (int)SYSCALL(call, file);
    enum kind kind = S_ISDIR(status.st_mode) ? SYNC_FOLDER : SYNC;
    int error = before(kind, place, "");
    if (error) return errno = error, -1;
    if (kind == SYNC) keep_synced(file, (long)status.st_ino);
    after(kind, 1, (long)status.st_ino, place, "");
    return 0;
}
EXPORT int fsync(int file) { return sync_file(file, SYS_fsync); }
EXPORT int fdatasync(int file) { return sync_file(file, SYS_fdatasync); }

static int sync_all(void) {
    int error = before(SYNC_ALL, "", "");
    if (error) return errno = error, -1;
    keep_all_synced();
    after(SYNC_ALL, 1, 0, "", "");
    return 0;
}
EXPORT void sync(void) { active ? (void)sync_all() : (void)SYSCALL(SYS_sync); }
EXPORT int syncfs(int file) {
    char path[PATH_MAX];
    return place_of(file, path) ? sync_all() : (int)SYSCALL(SYS_syncfs, file);
}

/* A change of one name, or of two; `CALL` does it. */
#define NAMES_ONE(KIND, FOLDER, NAME, CALL)               \
    do {                                                  \
        char path[PATH_MAX];                              \
        const char *place = place_at(FOLDER, NAME, path); \
        if (!place) return (int)CALL;                     \
        int error = before(KIND, place, "");              \
        if (error) return errno = error, -1;              \
        int result = (int)CALL;                           \
        after(KIND, result == 0, 0, place, "");           \
        return result;                                    \
    } while (0)
#define NAMES_TWO(KIND, FROM_FOLDER, FROM, TO_FOLDER, TO, CALL)                                     \
    do {                                                                                            \
        char from_path[PATH_MAX], to_path[PATH_MAX];                                                \
        const char *from = place_at(FROM_FOLDER, FROM, from_path), *to = place_at(TO_FOLDER, TO, to_path); \
        if (!from && !to) return (int)CALL;                                                         \
        from = from ? from : from_path, to = to ? to : to_path; /* outside: absolute */             \
        int error = before(KIND, from, to);                                                         \
        if (error) return errno = error, -1;                                                        \
        int result = (int)CALL;                                                                     \
        after(KIND, result == 0, 0, from, to);                                                      \
        return result;                                                                              \
    } while (0)

EXPORT int unlinkat(int folder, const char *name, int flags) {
    enum kind kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK;
    NAMES_ONE(kind, folder, name, SYSCALL(SYS_unlinkat, folder, name, flags));
}
EXPORT int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
EXPORT int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
EXPORT int remove(const char *name) {
    struct stat status;
    return !lstat(name, &status) && S_ISDIR(status.st_mode) ? rmdir(name) : unlink(name);
}
EXPORT int mkdirat(int folder, const char *name, mode_t mode) {
    NAMES_ONE(MKDIR, folder, name, SYSCALL(SYS_mkdirat, folder, name, mode));
}
EXPORT int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
EXPORT int renameat2(int from_folder, const char *from_name, int to_folder, const char *to_name, unsigned flags) {
    NAMES_TWO(RENAME, from_folder, from_name, to_folder, to_name,
              SYSCALL(SYS_renameat2, from_folder, from_name, to_folder, to_name, flags));
}
EXPORT int renameat(int from_folder, const char *from_name, int to_folder, const char *to_name) {
    return renameat2(from_folder, from_name, to_folder, to_name, 0);
}
EXPORT int rename(const char *from_name, const char *to_name) { return renameat2(AT_FDCWD, from_name, AT_FDCWD, to_name, 0); }
EXPORT int linkat(int from_folder, const char *from_name, int to_folder, const char *to_name, int flags) {
    NAMES_TWO(LINK, from_folder, from_name, to_folder, to_name,
              SYSCALL(SYS_linkat, from_folder, from_name, to_folder, to_name, flags));
}
EXPORT int link(const char *from_name, const char *to_name) { return linkat(AT_FDCWD, from_name, AT_FDCWD, to_name, 0); }
EXPORT int symlinkat(const char *to_name, int folder, const char *name) {
    NAMES_ONE(SYMLINK, folder, name, SYSCALL(SYS_symlinkat, to_name, folder, name));
}
EXPORT int symlink(const char *to_name, const char *name) { return symlinkat(to_name, AT_FDCWD, name); }
