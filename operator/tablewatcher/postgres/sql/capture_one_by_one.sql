      FOR picked IN {rows} LOOP
        NEW := picked.whole;
        body := NULL; key_json := NULL; n := NULL; o := NULL;{forget}
{row_by_row}
      END LOOP;
