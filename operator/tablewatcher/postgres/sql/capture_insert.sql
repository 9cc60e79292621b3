    IF slot = 0 THEN{first}
      INSERT INTO {ring}_0 ({columns}) {source};
    ELSIF slot = 1 THEN{first}
      INSERT INTO {ring}_1 ({columns}) {source};
    ELSIF slot = 2 THEN{first}
      INSERT INTO {ring}_2 ({columns}) {source};
{stopped}    END IF;
