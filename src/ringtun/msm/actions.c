/* The custom actions of ringtun's merge module: the driver goes when the last product goes that has
 * the module.
 *
 * Windows Installer counts the products by the module's anchor, a component that all of them have.
 * RingtunEvaluate, which runs first and changes nothing, sees whether the anchor comes, stays or
 * goes, and leaves its verdict in the property RingtunProcess. When that is "remove",
 * RingtunProcess runs with the rights of the system before wintun.dll is removed, and has it delete
 * the driver. Not so where a product only makes room for its next version. The driver comes by
 * itself, with the first adapter: there is nothing to do on installing, and nothing to undo when a
 * removal is rolled back.
 *
 * Both say in the installation's log what they see and do, in lines that begin with "ringtun: ".
 * Neither ever stops an installation or a removal.
 *
 * ANCHOR is the component's code, such as L"{B668D4C7-ABB3-485A-B8DF-D34200489A43}".
 */

#include <windows.h>
#include <msi.h>
#include <msiquery.h>
#include <shlobj.h>

#define EXPORT __declspec(dllexport)
#define LONGEST_KEY 73 /* of a component, with the zero behind it */
#define LONGEST_VERSION 64
#define LONGEST_LINE 512

/* FOLDERID_ProgramFilesCommon: of 64 bits for a library of 64 bits, of 32 for one of 32. */
static const GUID common_files = {
    0xF7F1ED05, 0x9F6D, 0x47A2, {0xAA, 0xAE, 0x29, 0xD3, 0x17, 0xC6, 0xF0, 0x66}};

/* A line of the log, in which [1] is the text and [2] the number. */
static void say(MSIHANDLE installation, const WCHAR *line, const WCHAR *text, int number)
{
    MSIHANDLE record = MsiCreateRecord(2);

    if (!record)
        return;
    MsiRecordSetStringW(record, 0, line);
    MsiRecordSetStringW(record, 1, text);
    MsiRecordSetInteger(record, 2, number);
    MsiProcessMessage(installation, INSTALLMESSAGE_INFO, record);
    MsiCloseHandle(record);
}

/* The key of the component that is the anchor. */
static UINT find_anchor(MSIHANDLE installation, WCHAR key[LONGEST_KEY])
{
    MSIHANDLE database = MsiGetActiveDatabase(installation), view = 0, row = 0;
    DWORD size = LONGEST_KEY;
    UINT error;

    error = MsiDatabaseOpenViewW(
        database, L"SELECT `Component` FROM `Component` WHERE `ComponentId` = '" ANCHOR L"'", &view);
    if (!error)
        error = MsiViewExecute(view, 0);
    if (!error)
        error = MsiViewFetch(view, &row);
    if (!error)
        error = MsiRecordGetStringW(row, 1, key, &size);
    MsiCloseHandle(row);
    MsiCloseHandle(view);
    MsiCloseHandle(database);
    return error;
}

/* The version of the module that is installed, by whichever product; empty if none is. */
static void installed_version(WCHAR version[LONGEST_VERSION])
{
    DWORD size = (LONGEST_VERSION - 1) * sizeof(WCHAR);
    HKEY key;

    version[0] = 0;
    if (RegOpenKeyExW(HKEY_LOCAL_MACHINE, L"SOFTWARE\\ringtun", 0, KEY_QUERY_VALUE, &key))
        return;
    if (RegGetValueW(key, NULL, L"Version", RRF_RT_REG_SZ, NULL, version, &size))
        version[0] = 0;
    RegCloseKey(key);
}

static const WCHAR *name_of(INSTALLSTATE state)
{
    switch (state) {
    case INSTALLSTATE_UNKNOWN:
        return L"as it is";
    case INSTALLSTATE_ABSENT:
    case INSTALLSTATE_REMOVED:
        return L"absent";
    case INSTALLSTATE_LOCAL:
    case INSTALLSTATE_SOURCE:
    case INSTALLSTATE_DEFAULT:
        return L"there";
    default:
        return L"in another state";
    }
}

static BOOL is_set(MSIHANDLE installation, const WCHAR *property)
{
    WCHAR nothing[1];
    DWORD size = 1;

    nothing[0] = 0;
    return MsiGetPropertyW(installation, property, nothing, &size) == ERROR_MORE_DATA;
}

/* What becomes of the module; "replace" where its product makes room for a later one. */
static const WCHAR *verdict_on(MSIHANDLE installation, INSTALLSTATE installed, INSTALLSTATE action,
                               const WCHAR *former, const WCHAR *version)
{
    switch (action) {
    case INSTALLSTATE_LOCAL:
    case INSTALLSTATE_SOURCE:
    case INSTALLSTATE_DEFAULT:
        if (installed == INSTALLSTATE_LOCAL || installed == INSTALLSTATE_SOURCE)
            return L"reinstall";
        return !former[0] || !lstrcmpW(former, version) ? L"install" : L"upgrade";
    case INSTALLSTATE_ABSENT:
    case INSTALLSTATE_REMOVED:
        if (installed != INSTALLSTATE_LOCAL && installed != INSTALLSTATE_SOURCE)
            return L"";
        return is_set(installation, L"UPGRADINGPRODUCTCODE") ? L"replace" : L"remove";
    default:
        return L"";
    }
}

EXPORT UINT WINAPI RingtunEvaluate(MSIHANDLE installation)
{
    WCHAR key[LONGEST_KEY], former[LONGEST_VERSION], version[LONGEST_VERSION];
    INSTALLSTATE installed = INSTALLSTATE_UNKNOWN, action = INSTALLSTATE_UNKNOWN;
    DWORD size = LONGEST_VERSION;
    const WCHAR *verdict;
    UINT error;

    version[0] = 0;
    MsiGetPropertyW(installation, L"RingtunVersion", version, &size);
    installed_version(former);
    error = find_anchor(installation, key);
    if (!error)
        error = MsiGetComponentStateW(installation, key, &installed, &action);
    if (error) {
        say(installation, L"ringtun: the module's state cannot be told: error [2]", L"", error);
        return ERROR_SUCCESS;
    }
    verdict = verdict_on(installation, installed, action, former, version);
    say(installation, L"ringtun: installed before: [1]", former[0] ? former : L"nothing", 0);
    say(installation, L"ringtun: this module: [1]", version, 0);
    say(installation, L"ringtun: its anchor was [1]", name_of(installed), 0);
    say(installation, L"ringtun: its anchor becomes [1]", name_of(action), 0);
    say(installation, L"ringtun: verdict: [1]", verdict[0] ? verdict : L"nothing to do", 0);
    MsiSetPropertyW(installation, L"RingtunProcess", verdict);
    return ERROR_SUCCESS;
}

/* wintun.dll's own lines go into the log; it has one logger, and an installation one thread here. */
static MSIHANDLE logging;

static void CALLBACK hear(int level, DWORD64 time, const WCHAR *line)
{
    DWORD error = GetLastError();
    WCHAR plain[LONGEST_LINE];
    int at;

    (void)level;
    (void)time;
    /* Brackets would be taken for properties. */
    for (at = 0; at < LONGEST_LINE - 1 && line[at]; at++)
        plain[at] = line[at] == L'[' ? L'(' : line[at] == L']' ? L')' : line[at];
    plain[at] = 0;
    say(logging, L"ringtun: wintun.dll: [1]", plain, 0);
    SetLastError(error);
}

/* Where the module puts wintun.dll, wherever its product goes; null if that cannot be told. */
static HMODULE load_wintun(MSIHANDLE installation)
{
    static const WCHAR name[] = L"\\ringtun\\wintun.dll";
    WCHAR path[MAX_PATH + sizeof name / sizeof *name];
    HMODULE found = NULL;
    WCHAR *folder = NULL;

    if (SHGetKnownFolderPath(&common_files, 0, NULL, &folder) || lstrlenW(folder) >= MAX_PATH) {
        say(installation, L"ringtun: there is no folder of common files", L"", 0);
    } else {
        lstrcpyW(path, folder);
        lstrcatW(path, name);
        found = LoadLibraryExW(path, NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
        if (!found)
            say(installation, L"ringtun: [1] cannot be loaded: error [2]", path, GetLastError());
    }
    CoTaskMemFree(folder);
    return found;
}

EXPORT UINT WINAPI RingtunProcess(MSIHANDLE installation)
{
    HMODULE wintun = load_wintun(installation);
    void (WINAPI *set_logger)(void (CALLBACK *)(int, DWORD64, const WCHAR *));
    BOOL (WINAPI *delete_driver)(void);

    if (!wintun)
        return ERROR_SUCCESS;
    set_logger = (void *)GetProcAddress(wintun, "WintunSetLogger");
    delete_driver = (void *)GetProcAddress(wintun, "WintunDeleteDriver");
    if (!delete_driver) {
        say(installation, L"ringtun: this wintun.dll cannot delete its driver", L"", 0);
    } else {
        logging = installation;
        if (set_logger)
            set_logger(hear);
        if (delete_driver())
            say(installation, L"ringtun: the driver was deleted", L"", 0);
        else
            say(installation, L"ringtun: the driver stays: error [2]", L"", GetLastError());
        if (set_logger)
            set_logger(NULL);
    }
    FreeLibrary(wintun);
    return ERROR_SUCCESS;
}

BOOL WINAPI DllMain(HINSTANCE library, DWORD reason, void *reserved)
{
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH)
        DisableThreadLibraryCalls(library);
    return TRUE;
}
