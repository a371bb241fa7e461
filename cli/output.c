/* What is printed: tables, JSON, sizes and times, and the text of others. */
#include "cli/internal.h"
#include <stdarg.h>
#include <time.h>
#include <wchar.h>

/* Bytes of the character that begins here; 0: it is none. */
static size_t char_at(const char *text, size_t left)
{
    unsigned char lead = (unsigned char)text[0];
    size_t len = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    return len == 1 || (len <= left && json_is_utf8(text, len)) ? len : 0;
}

void cli_print_text(FILE *out, const char *text, size_t len, bool lines)
{
    for (size_t i = 0, taken; i < len; i += taken) {
        unsigned char byte = (unsigned char)text[i];
        size_t size = char_at(text + i, len - i);
        taken = size > 0 ? size : 1;
        if (lines && byte == '\r')
            continue;
        bool control = byte < 0x20 || byte == 0x7f;
        if (size == 2)
            control = byte == 0xc2 && (unsigned char)text[i + 1] < 0xa0; /* C1 */
        if (lines && (byte == '\n' || byte == '\t'))
            control = false;
        if (size == 0 || control)
            fputc('?', out);
        else
            fwrite(text + i, 1, size, out);
    }
}

void cli_table_release(struct cli_table *table)
{
    for (size_t i = 0; i < table->rows; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table->colours);
    *table = (struct cli_table){0};
}

/* `rows` counts cells. */
void cli_table_cell(struct cli_table *table, enum cli_colour colour, const char *fmt, ...)
{
    char *text = NULL;
    va_list words;
    va_start(words, fmt);
    int len = vasprintf(&text, fmt, words);
    va_end(words);
    size_t count = table->rows + 1;
    char **cells = realloc(table->cells, count * sizeof(*cells));
    if (cells != NULL)
        table->cells = cells;
    enum cli_colour *colours = realloc(table->colours, count * sizeof(*colours));
    if (colours != NULL)
        table->colours = colours;
    if (len < 0 || cells == NULL || colours == NULL) {
        free(len < 0 ? NULL : text);
        table->failed = true;
        return;
    }
    cells[table->rows] = text;
    colours[table->rows++] = colour;
}

/* Columns that a text takes; what is not text of this locale counts by its bytes. */
static size_t width_of(const char *text)
{
    wchar_t wide[1024];
    size_t count = mbstowcs(wide, text, COUNT_OF(wide));
    int width = count < COUNT_OF(wide) ? wcswidth(wide, count) : -1;
    return width >= 0 ? (size_t)width : strlen(text);
}

static void print_cell(const struct cli *cli, const struct cli_table *table, size_t at,
                       size_t width)
{
    static const char *const codes[] = {"", "32", "33", "31", "1", "2"};
    enum cli_colour colour = at < table->columns ? CLI_BOLD : table->colours[at];
    bool painted = cli->colours && colour != CLI_PLAIN;
    bool last = at % table->columns == table->columns - 1;
    if (painted)
        printf("\033[%sm", codes[colour]);
    cli_print_text(stdout, table->cells[at], strlen(table->cells[at]), false);
    if (painted)
        fputs("\033[0m", stdout);
    if (!last)
        printf("%*s", (int)(width - width_of(table->cells[at]) + 2), "");
}

void cli_table_print(const struct cli *cli, const struct cli_table *table, const char *ending)
{
    size_t widths[CLI_COLUMNS_MAX] = {0};
    for (size_t i = 0; i < table->rows; i++) {
        size_t width = width_of(table->cells[i]), *widest = &widths[i % table->columns];
        *widest = width > *widest ? width : *widest;
    }
    for (size_t i = 0; i < table->rows; i++) {
        print_cell(cli, table, i, widths[i % table->columns]);
        if (i % table->columns == table->columns - 1)
            fputs(ending, stdout);
    }
}

int cli_print_json(const cJSON *json, struct error *err)
{
    cleanup_free char *text = cJSON_Print(json);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the answer");
    puts(text);
    return 0;
}

void cli_size(uint64_t bytes, char out[static 16])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes;
    size_t unit = 0;
    for (; size >= 1024 && unit + 1 < COUNT_OF(units); unit++)
        size /= 1024;
    snprintf(out, 16, unit == 0 ? "%.0f %s" : "%.1f %s", size, units[unit]);
}

int64_t cli_time_ms(const char *time)
{
    struct tm parts = {0};
    const char *end = time != NULL ? strptime(time, "%Y-%m-%dT%H:%M:%S", &parts) : NULL;
    if (end == NULL)
        return -1;
    int64_t ms = 0;
    if (end[0] == '.')
        ms = strtol(end + 1, NULL, 10);
    return (int64_t)timegm(&parts) * 1000 + ms;
}

void cli_age(const char *since, char out[static 16])
{
    int64_t begun = cli_time_ms(since), seconds = (clock_wall_ms() - begun) / 1000;
    if (begun < 0)
        snprintf(out, 16, "-");
    else if (seconds < 120)
        snprintf(out, 16, "%llds", (long long)(seconds > 0 ? seconds : 0));
    else if (seconds < 7200)
        snprintf(out, 16, "%lldm", (long long)(seconds / 60));
    else if (seconds < 172800)
        snprintf(out, 16, "%lldh", (long long)(seconds / 3600));
    else
        snprintf(out, 16, "%lldd", (long long)(seconds / 86400));
}

enum cli_colour cli_state_colour(const char *state)
{
    if (strcmp(state, "running") == 0)
        return CLI_GREEN;
    if (strcmp(state, "paused") == 0 || strcmp(state, "creating") == 0)
        return CLI_YELLOW;
    return strcmp(state, "deleting") == 0 ? CLI_FAINT : CLI_RED;
}

const char *cli_text(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text != NULL && text[0] != '\0' ? text : "-";
}

double cli_real(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : -1;
}
